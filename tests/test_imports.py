import subprocess
import sys

import pytest

import primal_dual
import torch_impl


def loaded_after(code):
    heavy = ("cvxpy", "sklearn", "torch", "aeon", "matplotlib", "scipy", "typer", "rich")
    printed = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print([m for m in {heavy} if m in sys.modules])"],
        capture_output=True,
        text=True,
        check=True,
    )
    return printed.stdout.strip()


def test_import_loads_numpy_and_autograd_alone():
    assert loaded_after("import primal_dual") == "[]"
    assert loaded_after("import primal_dual as p, numpy as n; p.certify(p.Primal(), n.eye(3), n.eye(3))") == "[]"


def test_torch_impl_needs_torch_numpy_and_autograd_alone():
    """On a bare machine, certify_module included."""
    blocked = ["cvxpy", "sklearn", "scipy", "aeon", "matplotlib", "typer", "rich", "transformers", "timm", "hypothesis"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import torch, torch_impl; "
    code += "from torch_impl import MultiheadAttention as A; x = torch.randn(4, 1, 8); "
    code += "print(torch_impl.certify_module(A(8, 2, primal='bn'), (x, x, x)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("2 SVRs of 1 attention module")


def test_public_names():
    for name in primal_dual.__all__:
        assert getattr(primal_dual, name) is not None
    for name in torch_impl.__all__:
        assert getattr(torch_impl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = primal_dual.nothing
