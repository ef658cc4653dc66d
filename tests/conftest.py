"""Settings of all tests. With CHECK_SHAPES=1 every call into the packages is checked against its annotated shapes."""

import os
from contextlib import nullcontext

if os.environ.get("CHECK_SHAPES"):  # before the packages are imported
    from jaxtyping import install_import_hook

    import tests.typechecker  # noqa: F401, which the hook looks up by its name

    install_import_hook(["primal_dual", "torch_impl"], "tests.typechecker.check")

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from tests import pretend_device
from tests.attacks.attempts import SURVIVED
from tests.on_device import OnDevice, chooses_its_device, paused
from torch_impl.data.series import load_series
from torch_impl.fast import softmax

QUIET = [check for check in HealthCheck if check is not HealthCheck.filter_too_much]
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=QUIET)
settings.register_profile("mutation", settings.get_profile("tests"), max_examples=30, phases=[Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))
torch.set_num_threads(1)  # tests are small, and run in parallel


def pytest_addoption(parser):
    parser.addoption("--attack", action="store_true", help="make 5,000 attempts to break the program; 200 without")
    devices = ("cpu", "cuda", pretend_device.NAME)
    parser.addoption("--device", default="cpu", choices=devices, help="where the tests of torch_impl compute")


def pytest_configure(config):
    device = config.getoption("device")
    if device == pretend_device.NAME:
        pretend_device.use()
    if device != "cpu":
        OnDevice(device).__enter__()  # before tests are imported, some of which make tensors then
        torch.backends.cudnn.deterministic = True  # some compare two trainings to the bit


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    with paused() if chooses_its_device(item.path) else nullcontext():
        return (yield)


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("attack"):
        terminalreporter.section("attacks")
        for area, survived in SURVIVED.items():
            terminalreporter.line(f"{area}: {len(survived)} attempts, {sum(survived)} survived")


@pytest.fixture
def attempts_of(pytestconfig):
    """How many attempts a test makes that makes so many with --attack."""
    return lambda most: most if pytestconfig.getoption("attack") else most // 25


@pytest.fixture(autouse=True)
def fused(monkeypatch):
    """The small problems of tests are evaluated as large ones are, unless a test says otherwise."""
    monkeypatch.setattr(softmax, "SHORT", 0)


@pytest.fixture(scope="session")
def motions():
    """A real set of 40 and 40 short series, which comes with aeon."""
    return load_series("BasicMotions")
