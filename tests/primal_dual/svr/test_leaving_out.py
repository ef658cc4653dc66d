"""Leave-one-out predictions: those of SVRs that are fitted to all keys but one, one after the other."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from primal_dual import Causal, Convolution, Gaussian, Primal, catalog, leave_one_out, solve_dual
from primal_dual.svr.training_sets import training_set
from tests import problems


def fitted_without(primal, keys, targets, j, C, epsilon):
    """The prediction at key j of the SVR of the others; what is left of the pools is averaged by hand."""
    kept = np.delete(np.arange(len(keys)), j)
    groups = [kept[kept // primal.scale == g] for g in range(len(keys))]
    pooled_keys, pooled_targets = (np.array([x[group].mean(axis=0) for group in groups if len(group)])
                                   for x in (keys, targets))  # fmt: skip
    alone = replace(primal, scale=1)
    return solve_dual(alone, pooled_keys, pooled_targets, C=C, epsilon=epsilon).predict(keys[[j]])[0]


@given(
    problems.seeds,
    problems.primals(transforms=problems.TOKENWISE, supports=st.just(Primal().support)),
    st.integers(3, 13),
    st.sampled_from([0.0, 0.1, 0.7]),
)
@settings(max_examples=40)
def test_each_prediction_is_that_of_the_svr_without_the_key(seed, primal, N, epsilon):
    rng = np.random.default_rng(seed)
    keys, targets = rng.standard_normal((N, 5)), rng.standard_normal((N, 2))
    train = training_set(primal, keys)
    assume(np.ptp(train.log_h) <= 10)
    C = train.penalty(10 ** rng.uniform(-1, 2))
    f = leave_one_out(primal, keys, targets, C=C, epsilon=epsilon)
    for j in rng.choice(N, 2, replace=False):
        expected = fitted_without(primal, keys, targets, j, C, epsilon)
        np.testing.assert_allclose(f[j], expected, atol=1e-6 * max(1, abs(expected).max()))


@pytest.mark.parametrize("name", ["softmax", "bn", "sh", "bn+sh", "linear", "qk-norm", "rbf"])
def test_of_the_catalog(name):
    rng = np.random.default_rng(0)
    keys, targets = rng.standard_normal((37, 5)), rng.standard_normal((37, 1))
    primal = replace(catalog[name], bias=True)
    C = training_set(primal, keys).penalty(10)
    f = leave_one_out(primal, keys, targets, C=C, epsilon=0.1)
    expected = [fitted_without(primal, keys, targets, j, C, 0.1) for j in (0, 11, 36)]
    np.testing.assert_allclose(f[[0, 11, 36]], expected, atol=1e-7)


def test_a_point_inside_the_tube_counts_for_an_attention_but_not_for_a_kernel_svr():
    """Without a normaliser, points of delta_j = 0 could be left out. With h, every key has its share in z_i."""
    x = np.linspace(-1, 1, 11)[:, None]
    for normalizer, same in (("one", True), ("sum", False)):
        primal = Primal(Gaussian(1.0), normalizer=normalizer, bias=True)
        solution = solve_dual(primal, x, x**2, C=100, epsilon=0.2)
        inside = (solution.alpha + solution.alpha_tilde)[:, 0] < 1e-8
        change = abs(leave_one_out(primal, x, x**2, C=100, epsilon=0.2) - solution.predict(x))[inside].max()
        assert inside.any() and (change < 1e-8) == same


@pytest.mark.parametrize("primal", [Primal(support=Causal()), Primal(transform=Convolution((1,))), "softmax"])
def test_refuses_what_depends_on_order(primal):
    with pytest.raises(ValueError, match=r"primal: expected"):
        leave_one_out(primal, np.eye(3), np.eye(3), C=1, epsilon=0.1)


@pytest.mark.parametrize("change", [{"C": 0}, {"epsilon": -1}, {"targets": np.eye(2)}, {"keys": np.ones(3)}])
def test_refuses_bad_input(change):
    problem = dict(keys=np.eye(3), targets=np.eye(3), C=1, epsilon=0.1)
    with pytest.raises(ValueError, match=r"expected .* got"):
        leave_one_out(Primal(), **problem | change)
    with pytest.raises(ValueError, match="two keys at least"):
        leave_one_out(Primal(), np.eye(1), np.eye(1), C=1, epsilon=0.1)
