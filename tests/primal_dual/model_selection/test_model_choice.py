"""C, epsilon and metric chosen by leave-one-out errors."""

import numpy as np
import pytest
from sklearn.datasets import make_friedman1
from sklearn.svm import SVR

from primal_dual import Primal, SVRAttention, attention, leave_one_out
from primal_dual.model_selection.model_choice import choose, learned_metric
from primal_dual.svr.training_sets import training_set

LOO = dict(C="loo", epsilon="loo", metric="loo")


def friedman(N=150):
    X, y = make_friedman1(N, random_state=0, noise=1.0)
    return (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std()


def test_what_is_chosen_is_better_than_where_the_search_began():
    X, y = friedman(80)
    primal, Y = Primal(), y[:, None]

    def exact(C, epsilon, metric):
        C = training_set(primal, X * metric).penalty(C)
        return ((leave_one_out(primal, X * metric, Y, C=C, epsilon=epsilon) - Y) ** 2).mean()

    start = exact(10, 0.1, 1.0)
    common = choose(primal, X, Y, None, None, np.ones(10))
    everything = choose(primal, X, Y, None, None, None)
    assert (common.metric == 1).all() and np.ptp(everything.metric) > 0
    for choice, share in ((common, 1.0), (everything, 0.7)):
        assert exact(choice.C, choice.epsilon, choice.metric) < share * start


def test_given_numbers_stay():
    X, y = friedman(60)
    for given in (
        {"C": 3.0},
        {"epsilon": 0.3},
        {"metric": 0.5},
        {"C": 3.0, "epsilon": 0.3, "metric": np.linspace(0.1, 1, 10)},
    ):
        model = SVRAttention(**LOO | given).fit(X, y)
        for name, value in given.items():
            np.testing.assert_array_equal(
                getattr(model, name + "_"), np.broadcast_to(value, 10 if name == "metric" else ())
            )


def test_the_units_of_the_targets_do_not_matter():
    X, y = friedman(50)
    one, thousand = (SVRAttention(C="loo", epsilon="loo").fit(X, unit * y) for unit in (1, 1000))
    np.testing.assert_allclose([thousand.C_, thousand.epsilon_], [1000 * one.C_, 1000 * one.epsilon_], rtol=1e-6)
    np.testing.assert_allclose(thousand.predict(X), 1000 * one.predict(X), rtol=1e-6)


def test_a_metric_is_a_change_of_the_features():
    X, y = friedman(60)
    metric = np.linspace(0.1, 1, 10)
    with_metric, without = SVRAttention(metric=metric).fit(X, y), SVRAttention().fit(X * metric, y)
    np.testing.assert_array_equal(with_metric.predict(X[:7]), without.predict(X[:7] * metric))
    model = SVRAttention(**LOO).fit(X, y)
    f = attention(Primal(), X[:7] * model.metric_, model.keys_, model.values_)[:, 0]
    np.testing.assert_allclose(model.predict(X[:7]), f, rtol=1e-12)


def test_irrelevant_features_are_found_and_noise_is_not_taken_for_a_metric():
    X, y = friedman()
    metric = learned_metric(Primal(), X, y[:, None])
    assert metric[:5].min() > 3 * np.median(metric[5:])
    rng = np.random.default_rng(0)
    assert np.ptp(SVRAttention(**LOO).fit(X, rng.standard_normal(150)).metric_) == 0


def test_it_beats_a_support_vector_regression_where_features_are_irrelevant():
    X, y = friedman()
    train, test = slice(0, 90), slice(90, 150)
    ours = SVRAttention(**LOO).fit(X[train], y[train]).score(X[test], y[test])
    theirs = [SVR(C=C, gamma=gamma).fit(X[train], y[train]).score(X[test], y[test])
              for C in (1, 10, 100) for gamma in (0.01, 0.03, 0.1)]  # fmt: skip
    assert ours > max(theirs) + 0.05


@pytest.mark.parametrize("kept", [2, 3, 5])
def test_few_samples(kept):
    X, y = friedman(20)
    assert np.isfinite(SVRAttention(**LOO).fit(X[:kept], y[:kept]).predict(X)).all()
    with pytest.raises(ValueError, match="two samples at least"):
        SVRAttention(**LOO).fit(X[:1], y[:1])
