import subprocess
import sys

import pytest

import primal_dual


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


def test_public_names():
    for name in primal_dual.__all__:
        assert getattr(primal_dual, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = primal_dual.nothing
