"""The tests of torch_impl on another device: pytest --device cuda, or --device pretend."""

import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.overrides import TorchFunctionMode, _is_torch_function_mode_enabled, _pop_mode_temporarily
from torch.utils._device import _device_constructors

ROOT = Path(__file__).parents[1]
TESTS, PACKAGE = ROOT / "tests" / "torch_impl", ROOT / "torch_impl"
CHOOSE_THEIR_DEVICE = [TESTS / name for name in ("bench", "data", "training")]
CONSTRUCTORS = _device_constructors()


class OnDevice(TorchFunctionMode):
    """What a test makes without a device is made on one; not so what the package makes, which must ask its inputs."""

    def __init__(self, device):
        super().__init__()
        self.device = torch.device(device)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        if function in CONSTRUCTORS and kwargs.get("device") is None and _made_by_a_test():
            kwargs["device"] = self.device
        if function in CONSTRUCTORS and kwargs.get("generator"):  # those of tests are of the CPU
            return function(*args, **kwargs | {"device": "cpu"}).to(kwargs.get("device") or "cpu")
        if function is torch.tensor:  # which does not know a device that is written in Python
            return _moved(function, args, kwargs, kwargs.pop("device", "cpu"))
        if function is torch.Tensor.new_tensor:
            tensor, *args = args
            return _moved(torch.tensor, args, {"dtype": tensor.dtype} | kwargs, tensor.device)
        return function(*args, **kwargs)


def paused():
    """Without OnDevice, if it is on: for torch.compile, which would look into it and fail."""
    return _pop_mode_temporarily() if _is_torch_function_mode_enabled() else nullcontext()


def chooses_its_device(file):
    """Whether tests are of files, which are read to the CPU, or of runs; but batches are augmented where they are."""
    return any(folder in file.parents for folder in CHOOSE_THEIR_DEVICE) and "augmentation" not in file.name


def _moved(function, args, kwargs, device):
    needs_gradient = kwargs.pop("requires_grad", False)
    return function(*args, **kwargs).to(device).requires_grad_(needs_gradient)


def _made_by_a_test():
    """Whether no function of the package is at work, but for the constructor of a module that a test makes."""
    frame, outermost = sys._getframe(2), None
    while frame and TESTS not in Path(frame.f_code.co_filename).parents:
        if PACKAGE in Path(frame.f_code.co_filename).parents:
            outermost = frame
        frame = frame.f_back
    is_constructor = outermost and isinstance(outermost.f_locals.get("self"), nn.Module)
    return bool(frame) and (not outermost or (is_constructor and outermost.f_code.co_name == "__init__"))
