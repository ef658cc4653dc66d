"""The annotated shapes hold: a part of the tests once more, with every call into the packages checked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKED = [
    "tests/primal_dual/test_expansion.py",
    "tests/primal_dual/test_layers.py",
    "tests/torch_impl/test_masks.py",
]
ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"CHECK_SHAPES": "1", "HYPOTHESIS_PROFILE": "mutation"}


def run(*words):
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", CHECKED)
def test_shapes_hold(path):
    quiet = ["-W", "ignore::hypothesis.errors.HypothesisDeprecationWarning"]  # the checker draws random items of lists
    result = run("-m", "pytest", "-x", "-p", "no:cacheprovider", "-k", "not learns", *quiet, path)
    assert result.returncode == 0, result.stdout[-3000:]


def test_a_wrong_shape_is_caught():
    code = "import tests.conftest, numpy as np; from primal_dual.sequence import pool; "
    result = run("-c", code + "pool(np.ones((4, 2)), np.ones(5, bool), 2)")
    assert result.returncode and "TypeCheckError" in result.stderr and "members" in result.stderr
