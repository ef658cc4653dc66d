import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.utils.estimator_checks import check_estimator

from primal_dual import (
    BatchNorm,
    Causal,
    Convolution,
    Everything,
    Exponential,
    Gaussian,
    Heads,
    Primal,
    SVRAttention,
    attention,
    attention_weights,
    catalog,
    solve_dual,
)
from primal_dual.model_selection import estimator
from primal_dual.svr.training_sets import training_set
from primal_dual.transforms import split_convolutions


def has_no_order(primal):
    return isinstance(primal.support, Everything) and not split_convolutions(primal.transform)[0]


def test_why_linear_attention_needs_a_larger_C():
    """Its weights are nearly equal, and f, their average of |v_j| <= C median h / h_j, moves little."""
    X, y = np.random.default_rng(0).standard_normal((2, 200, 10))
    y = X[:, 0]
    largest_weights = [attention_weights(catalog[name], X, X).max(axis=1).mean() for name in ("linear", "softmax")]
    scores = [
        SVRAttention(*setting).fit(X, y).score(X, y) for setting in (("linear", 10), ("linear", 100), ("softmax", 10))
    ]
    assert largest_weights[0] < 0.02 < 0.1 < largest_weights[1]
    assert scores[0] < 0.5 < scores[1] and scores[2] > 0.8


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "primal", [name for name, primal in catalog.items() if isinstance(primal, Primal) and has_no_order(primal)]
)
def test_check_estimator(primal):
    C = 100.0 if "linear" in primal else 10.0  # one of the checks wants a score above 0.5
    results = check_estimator(SVRAttention(primal, C=C), on_fail=None, on_skip=None)
    assert not [result for result in results if result["status"] in ("failed", "xfail")] and len(results) > 40


def test_predict_attends():
    rng = np.random.default_rng(0)
    X, Y, x = rng.standard_normal((11, 3)), rng.standard_normal((11, 2)), rng.standard_normal((5, 3))
    for primal in ("softmax", "bn+sh", Primal(transform=BatchNorm(), bias=True)):
        model = SVRAttention(primal).fit(X, Y)
        declared = catalog[primal] if isinstance(primal, str) else primal
        np.testing.assert_allclose(model.predict(x), attention(declared, x, X, model.values_) + model.bias_, rtol=1e-12)
        assert model.relative_gap_ < 1e-10
        dual = solve_dual(declared, X, Y, C=np.exp(model.log_C_), epsilon=0.1, solver="newton")
        np.testing.assert_allclose(dual.predict(x), model.predict(x), atol=1e-8)
    one = SVRAttention().fit(X=X, y=Y[:, 0])
    assert one.predict(x).shape == (5,)


def test_in_pipelines_and_searches():
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:100], y[:100] / 100
    pipeline = make_pipeline(StandardScaler(), SVRAttention(Primal(Gaussian(3.0), normalizer="one", bias=True), C=1.0))
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.1
    search = GridSearchCV(
        pipeline, {"svrattention__C": [0.1, 10], "svrattention__primal": ["rbf", "softmax"]}, cv=2
    ).fit(X, y)
    assert search.best_params_["svrattention__C"] in (0.1, 10)


def test_agrees_with_scikit_learn():
    X, y = load_diabetes(return_X_y=True)
    X, y = StandardScaler().fit_transform(X[:80]), y[:80] / 100
    primal = Primal(Gaussian(bandwidth=3.0), normalizer="one", bias=True)
    ours = SVRAttention(primal, C=2.0, epsilon=0.1).fit(X, y)
    theirs = SVR(kernel="precomputed", C=2.0, epsilon=0.1, tol=1e-9).fit(training_set(primal, X).gram(X), y)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(training_set(primal, X).gram(X)), atol=2e-4)


@pytest.mark.parametrize(
    "primal",
    [
        Heads(Primal()),
        "multi-head",
        "window",
        Primal(support=Causal()),
        Primal(transform=Convolution((1,))),
        "sofmax",
        3,
        Exponential(),
    ],
)
def test_refuses_what_depends_on_order(primal):
    with pytest.raises(ValueError, match=r"expected|did you mean"):
        SVRAttention(primal).fit(np.eye(3), np.ones(3))


@pytest.mark.parametrize(
    "setting",
    [
        {"C": 0},
        {"C": "lo"},
        {"epsilon": -1},
        {"epsilon": "loop"},
        {"metric": np.ones(2)},
        {"metric": np.nan},
        {"metric": "diagonal"},
        {"solver": "NONE"},
    ],
)
def test_refuses_bad_settings(setting):
    with pytest.raises(ValueError, match=r"expected .* got"):
        SVRAttention(**setting).fit(np.eye(3), np.ones(3))


def test_warns_where_the_gap_stays_open():
    X = 100 * np.random.default_rng(0).standard_normal((30, 2))
    with pytest.warns(UserWarning, match="standardise X"):
        SVRAttention().fit(X, X[:, 0])


def test_a_gap_above_a_millionth_is_told(monkeypatch):
    right = estimator.solve_scaled_dual

    def left_open(*arguments):
        found = right(*arguments)
        return found._replace(primal_value=found.value + 1e-5 * max(abs(found.value), found.size))

    monkeypatch.setattr(estimator, "solve_scaled_dual", left_open)
    X = np.random.default_rng(0).standard_normal((9, 2))
    with pytest.warns(ConvergenceWarning, match="standardise X"):
        SVRAttention().fit(X, X[:, 0])
