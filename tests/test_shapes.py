"""The annotated shapes hold: a part of the tests once more, with every call into the packages checked."""

import pytest

from tests.processes import run_python

CHECKED = [
    "tests/primal_dual/test_expansion.py",
    "tests/primal_dual/test_layers.py",
    "tests/torch_impl/test_masks.py",
]


@pytest.mark.parametrize("path", CHECKED)
def test_shapes_hold(path):
    quiet = ["-W", "ignore::hypothesis.errors.HypothesisDeprecationWarning"]  # the checker draws random items of lists
    result = run_python(
        "-m", "pytest", "-x", "-p", "no:cacheprovider", "-k", "not learns", *quiet, path, CHECK_SHAPES="1"
    )
    assert result.returncode == 0, result.stdout[-3000:]


def test_a_wrong_shape_is_caught():
    code = "import tests.conftest, numpy as np; from primal_dual.sequence import pool; "
    result = run_python("-c", code + "pool(np.ones((4, 2)), np.ones(5, bool), 2)", CHECK_SHAPES="1")
    assert result.returncode and "TypeCheckError" in result.stderr and "members" in result.stderr
