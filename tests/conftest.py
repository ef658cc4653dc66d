import pytest
import torch
from hypothesis import HealthCheck, settings

from torch_impl.data.series import load_series
from torch_impl.fast import dispatch

settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.load_profile("tests")
torch.set_num_threads(1)  # tests are small, and run in parallel


@pytest.fixture(autouse=True)
def fused(monkeypatch):
    """The small problems of tests are evaluated as large ones are, unless a test says otherwise."""
    monkeypatch.setattr(dispatch, "SHORT", 0)


@pytest.fixture(scope="session")
def motions():
    """A real set of 40 and 40 short series, which comes with aeon."""
    return load_series("BasicMotions")
