"""Nothing is left on the CPU: a part of the tests of torch_impl once more, on a device that stands for a GPU."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHECKED = ["test_layers.py", "test_masks.py", "test_key_statistics.py", "drop_in/test_multihead.py"]
NO_NESTED_TENSORS = "not nested"  # the device does not have them
FEW_EXAMPLES = os.environ | {"HYPOTHESIS_PROFILE": "mutation"}


def run(*words):
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=FEW_EXAMPLES, capture_output=True, text=True, check=False
    )


def test_the_package_computes_where_its_inputs_are():
    paths = [str(Path("tests", "torch_impl", path)) for path in CHECKED]
    result = run("-m", "pytest", "-x", "-p", "no:cacheprovider", "--device", "pretend", "-k", NO_NESTED_TENSORS, *paths)
    assert result.returncode == 0, result.stdout[-3000:]


def test_a_tensor_on_another_device_is_caught():
    code = "import torch; from tests import pretend_device; pretend_device.use(); x = torch.ones(2, device='pretend'); "
    assert run("-c", code + "assert (x + x).cpu().tolist() == [2, 2]").returncode == 0
    result = run("-c", code + "x + torch.ones(2)")
    assert (
        result.returncode
        and "aten::add: expected all tensors on pretend; got one of shape (2,) on cpu" in result.stderr
    )
