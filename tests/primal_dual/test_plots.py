"""Plots: what they draw is what the SVR says."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from primal_dual import BatchNorm, Causal, Gaussian, Primal, attention_weights, catalog, certify, plots, solve_dual
from primal_dual.cli.demo_figure import draw
from primal_dual.svr.training_sets import training_set

PRIMALS = [catalog["softmax"], catalog["bn+sh"], catalog["linear"], Primal(Gaussian(), "one", BatchNorm(), bias=True)]
KINDS = (plots.INSIDE, plots.EDGE, plots.OUTSIDE)


def problem(seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((13, 3)), rng.standard_normal((13, 2))


def axes():
    return Figure().subplots()


def points(drawn, mark):
    """The points that are drawn with a mark, (n, 2)."""
    found = [line.get_xydata() for line in drawn.lines if line.get_marker() == mark.shape]
    return np.concatenate([np.empty((0, 2)), *found])


@pytest.mark.parametrize("primal", PRIMALS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_marks_are_those_of_the_dual(primal, seed):
    """A target is inside the tube, on its edge or outside as its delta is zero, between, or at the bound."""
    keys, targets = problem(seed)
    train = training_set(primal, keys)
    C = train.penalty(1.0)
    solution = solve_dual(primal, keys, targets, C=C, epsilon=0.5)
    size = (solution.alpha + solution.alpha_tilde)[:, 1] / C
    kinds = size < 1e-6, (size >= 1e-6) & (size <= 1 - 1e-6), size > 1 - 1e-6
    assert sum(chosen.any() for chosen in kinds) >= 2
    labels = dict(xlabel="word", ylabel="meaning", title="Mine")
    options = dict(targets=targets, epsilon=0.5, bias=solution.bias, output=1, axes=axes())
    drawn = plots.tube(primal, keys, solution.values, **options, **labels)
    assert (drawn.get_xlabel(), drawn.get_ylabel(), drawn.get_title()) == ("word", "meaning", "Mine")
    place, y = train.pool(np.arange(13.0)[:, None])[:, 0], train.pool(targets)[:, 1]
    for mark, chosen in zip(KINDS, kinds, strict=True):
        np.testing.assert_allclose(points(drawn, mark), np.stack([place, y], 1)[chosen])
    f = drawn.lines[0].get_ydata()
    np.testing.assert_allclose(f, solution.predict(keys)[:, 1] if primal.scale == 1 else f, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(f, (train.attend(train.keys, train.pool(solution.values)) + solution.bias)[:, 1])
    band = drawn.collections[0].get_paths()[0].vertices
    assert {*np.round(band[:, 1], 9)} == {*np.round([*(f - 0.5), *(f + 0.5)], 9)}
    shown = plots.attention_map(primal, keys, values=solution.values[:, [1]], C=C, axes=axes(), **labels)
    at = [np.flatnonzero(train.spread(chosen[:, None])[:, 0]) for chosen in kinds]
    for mark, places in zip(KINDS[1:], at[1:], strict=True):
        np.testing.assert_array_equal(points(shown, mark)[:, 0], places)
    all_support = plots.attention_map(primal, keys, values=solution.values[:, [1]], axes=axes())
    np.testing.assert_array_equal(points(all_support, plots.EDGE)[:, 0], np.sort(np.concatenate(at[1:])))


@pytest.mark.parametrize("primal", [*PRIMALS, catalog["causal"], catalog["window-bn"]])
def test_the_map_is_that_of_the_queries(primal):
    keys, values = problem(0)
    queries = problem(1)[0][:7]
    drawn = plots.attention_map(primal, keys, queries, axes=axes(), xlabel="a", ylabel="b", largest=0.3)
    np.testing.assert_allclose(drawn.images[0].get_array(), attention_weights(primal, queries, keys))
    assert (drawn.get_xlabel(), drawn.get_ylabel(), drawn.images[0].get_clim()) == ("a", "b", (0, 0.3))
    assert len(drawn.figure.axes) == 2 and len(points(drawn, plots.EDGE)) == 0
    values[[2, 5]] = 0
    drawn = plots.attention_map(primal, keys, values=values, axes=axes(), colorbar=False)
    np.testing.assert_allclose(drawn.images[0].get_array(), attention_weights(primal, keys, keys))
    assert len(drawn.figure.axes) == 1
    pooled = [2, 3, 4, 5] if primal.scale == 2 else [2, 5]
    assert {*range(13)} - {*points(drawn, plots.EDGE)[:, 0]} <= {*pooled}
    if primal.scale == 1:
        assert len(points(drawn, plots.EDGE)) == 11


@pytest.mark.parametrize("query", [None, 4])
def test_any_head_has_a_tube_through_its_own_outputs(query):
    keys, values = problem(2)
    primal = Primal() if query is None else Primal(support=Causal())
    places = np.arange(13.0) ** 2
    drawn = plots.tube(primal, keys, values, output=1, query=query, positions=places, axes=axes())
    targets = certify(primal, keys, values, query=query).targets[:, 1]
    np.testing.assert_allclose(points(drawn, plots.EDGE), np.stack([places[: len(targets)], targets], 1))
    assert len(targets) == (13 if query is None else 5)
    wide = plots.tube(primal, keys, values, epsilon=0.25, output=1, query=query, axes=axes())
    np.testing.assert_allclose(abs(points(wide, plots.EDGE)[:, 1] - targets), 0.25)


def test_primal_and_dual_value_meet():
    keys, targets = problem(3)
    drawn = plots.duality(Primal(), keys, targets, C=20.0, epsilon=0.1, axes=axes(), label="mine", xlabel="a")
    P, D = (line.get_ydata() for line in drawn.lines)
    assert (P[:, None] >= D - 1e-9).all() and P[0] - D[0] > 1e-3 and abs(P[-1] - D[-1]) < 1e-9 and D[-1] == 1
    assert [line.get_label() for line in drawn.lines] == ["mine: primal value", "mine: dual value"]
    assert (drawn.get_xlabel(), drawn.get_xscale()) == ("a", "log")


def test_the_figure_of_the_demo_says_what_it_shows():
    keys, targets = problem(4)
    figure = draw(keys, targets)
    said = " ".join(part.get_suptitle() for part in figure.subfigs)
    assert all(word in said for word in ("tube", "free", "support vectors", "primal", "dual", "layer"))
    titles = [axes.get_title().partition("\n")[0] for axes in figure.subfigs[0].axes]
    assert titles == ["Softmax attention", "Attention-BN", "Attention-SH"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, v: plots.tube(Primal(), k, v, output=2), "output: expected 0 to 1; got 2"),
        (lambda k, v: plots.tube(Primal(), k, v[0]), "values: expected shape"),
        (lambda k, v: plots.tube(Primal(), k, v, targets=v[:5]), "targets: expected 13 rows, one a key; got"),
        (lambda k, v: plots.tube(catalog["causal"], k, v), "query: expected a position"),
        (lambda k, v: plots.tube(Primal(), k, v[:5]), "values: expected 13 rows, one a key; got"),
        (lambda k, v: plots.tube(Primal(), k, v, positions=[1, 2]), "positions: expected 13 rows, one a key; got"),
        (lambda k, v: plots.attention_map(Primal(), k, values=v, C=-1), "C: expected a finite number > 0"),
        (lambda k, v: plots.attention_map(Primal(), k, values=v[:5]), "values: expected 13 rows, one a key; got"),
        (lambda k, v: plots.attention_map(catalog["window"], k, values=v, C=1.0), "C: expected none under Window"),
        (lambda k, v: plots.attention_map("bn", k), "primal: expected a Primal"),
        (lambda k, v: plots.duality(Primal(), k, v, C=0, epsilon=0.1), "C: expected a finite number > 0"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(*problem(0))
