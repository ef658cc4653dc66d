"""Nothing is left on the CPU: a part of the tests of torch_impl once more, on a device that stands for a GPU."""

from tests.processes import run_python

CHECKED = ["test_on_device", "test_layers", "test_masks", "test_key_statistics", "test_own_parts"]
CHECKED += ["fast/test_tables", "fast/test_softmax_masks", "drop_in/test_multihead", "test_certificate"]
CHECKED += ["data/test_series_augmentation", "data/images/test_augmentation"]
BUT = "not nested and not trained_classifier and not seeds"  # the device has no nested tensors, and is slow


def test_the_package_computes_where_its_inputs_are():
    paths = [f"tests/torch_impl/{name}.py" for name in CHECKED]
    result = run_python("-m", "pytest", "-x", "-p", "no:cacheprovider", "--device", "pretend", "-k", BUT, *paths)
    assert result.returncode == 0, result.stdout[-3000:]


MIXED = """
import torch
from tests import pretend_device

pretend_device.use()
x = torch.ones(2, device="pretend")
assert (x + x).cpu().tolist() == [2, 2] and x[torch.tensor([1])].device.type == "pretend"

def put():
    x[torch.tensor([1, 0])] = torch.ones(2)

for call in (lambda: x + torch.ones(2), lambda: torch.ones(2)[x > 0], put):
    try:
        call()
    except RuntimeError as error:
        print(error)
"""


def test_a_tensor_on_another_device_is_caught():
    result = run_python("-c", MIXED)
    message = "expected all tensors on pretend; got one of shape (2,) on cpu"
    assert result.stdout.splitlines() == [f"aten::{name}: {message}" for name in ("add", "index", "index_put_")], result
