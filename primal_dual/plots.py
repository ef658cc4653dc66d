"""Plots of an attention and of its SVR: the attention map, the tube around the targets, primal and dual value.

They take the keys and values of any head; matplotlib is in the extra `plot`. Each draws into the axes that it is given,
or into matplotlib's current ones, and returns them.
"""

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from primal_dual import checks
from primal_dual.certificates.certificate import Certificate, certify
from primal_dual.colours import BLUE, GREEN, GREY, VERMILION
from primal_dual.expansion import attention_weights
from primal_dual.primal import Primal
from primal_dual.supports import Everything
from primal_dual.svr.solutions import DualSolution
from primal_dual.svr.solve import solve_dual
from primal_dual.svr.training_sets import pooled_rows, training_set
from primal_dual.types import Array, Float, Num

ROUNDING = 1e-6  # of the largest: a smaller delta is zero, and a target so near to the tube's edge is on it


class _Mark(NamedTuple):
    """How the points of one kind are drawn, in the tube and above the attention map."""

    shape: str
    colour: str
    label: str


INSIDE = _Mark("o", GREY, "inside the tube: no support vector")
EDGE = _Mark("v", GREEN, "support vector on the edge")
OUTSIDE = _Mark("s", VERMILION, "support vector outside: its value is at the bound C")


def attention_map(
    primal: Primal,
    keys: Num[Array, "N D"],
    queries: Num[Array, "M D"] | None = None,
    *,
    values: Num[Array, "N Dv"] | None = None,
    C: float | None = None,
    axes: Axes | None = None,
    largest: float | None = None,
    colorbar: bool = True,
    xlabel: str = "key",
    ylabel: str = "query",
    title: str = "",
) -> Axes:
    """The attention weights of the queries on the keys; above them, which keys are support vectors.

    Parameters
    ----------
    primal : Primal
        The attention.
    keys : array, (N, D)
        The keys.
    queries : array, (M, D), optional
        The queries; the keys themselves by default.
    values : array, (N, Dv), optional
        Keys with a value other than zero, in some output, are marked as support vectors.
    C : float, optional
        The penalty of the SVR that the values solve: values at its bound have a mark of their own.
    axes : matplotlib's Axes, optional
        Where it is drawn.
    largest : float, optional
        The weight of the lightest colour; the largest weight by default.
    colorbar : bool
        Whether the axes get a bar of the colours.
    xlabel, ylabel, title : str
        What is written at the axes.

    Raises
    ------
    ValueError
        For shapes that do not fit, and for C under a support, where each query has an SVR of its own.

    Examples
    --------
    >>> keys = np.random.default_rng(0).standard_normal((7, 3))
    >>> axes = attention_map(Primal(), keys, keys[:5], axes=plt.figure().subplots(), xlabel="word", ylabel="word")
    >>> axes.images[0].get_array().shape, axes.get_xlabel()
    ((5, 7), 'word')
    """
    axes = plt.gca() if axes is None else axes
    weights = attention_weights(primal, keys if queries is None else queries, keys)
    image = axes.imshow(weights, cmap="cividis", vmin=0, vmax=largest, aspect="auto")
    if colorbar:
        axes.figure.colorbar(image, ax=axes, label="attention weight", extend="neither" if largest is None else "max")
    if values is not None:
        values = _one_a_key("values", checks.matrix("values", values, "N Dv"), len(keys))
        is_support, is_bound = _support_vectors(primal, keys, values, C)
        for mark, chosen in ((EDGE, is_support & ~is_bound), (OUTSIDE, is_bound)):
            places = np.flatnonzero(chosen)
            above = np.full(len(places), 1.03)
            transform = axes.get_xaxis_transform()  # across in keys, up in parts of the axes
            axes.plot(places, above, mark.shape, color=mark.colour, markersize=5, clip_on=False, transform=transform)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(-0.5, len(keys) - 0.5), ylim=(len(weights) - 0.5, -0.5))
    axes.set_title(title, pad=6 if values is None else 14)
    return axes


def tube(
    primal: Primal,
    keys: Num[Array, "N D"],
    values: Num[Array, "N Dv"],
    *,
    targets: Num[Array, "rows Dv"] | None = None,
    epsilon: float = 0.0,
    bias: Num[Array, " Dv"] | float = 0.0,
    output: int = 0,
    query: int | None = None,
    positions: Num[Array, " N"] | None = None,
    axes: Axes | None = None,
    xlabel: str = "key",
    ylabel: str = "output",
    title: str = "",
) -> Axes:
    """The attention f at its training points, the tube of half-width epsilon around it, and the targets.

    A target inside the tube belongs to no support vector; one on its edge or outside does. Under a scale, the training
    points are averages of keys, and each is drawn at the average position.

    Parameters
    ----------
    primal : Primal
        The attention.
    keys, values : arrays, (N, D) and (N, Dv)
        Those of the head.
    targets : array, (N, Dv) or (n, Dv), optional
        What the SVR is fitted to; those that the values fit by default, see `certify`.
    epsilon : float
        The half-width of the tube.
    bias : array, (Dv,), or float
        b.
    output : int
        Which of the Dv outputs is drawn.
    query : int, optional
        Whose SVR it is, under a support.
    positions : array, (N,), optional
        Where each key is along the axis; 0, 1, ... by default.
    axes : matplotlib's Axes, optional
        Where it is drawn.
    xlabel, ylabel, title : str
        What is written at the axes.

    Raises
    ------
    ValueError
        For shapes that do not fit, and for an output that is not there.

    Examples
    --------
    >>> keys, values = np.random.default_rng(0).standard_normal((2, 7, 3))
    >>> tube(Primal(), keys, values, output=2, axes=plt.figure().subplots(), title="A head").get_title()
    'A head'
    """
    axes = plt.gca() if axes is None else axes
    train = training_set(primal, keys, query)
    values = _one_a_key("values", checks.matrix("values", values, "N Dv"), len(keys))
    checks.integer("output", output, 0)
    if output >= values.shape[1]:
        raise ValueError(f"output: expected 0 to {values.shape[1] - 1}; got {output}")
    place = np.arange(len(keys)) if positions is None else positions
    x = train.pool(_one_a_key("positions", checks.array("positions", place, "N"), len(keys))[:, None])[:, 0]
    f = (train.attend(train.keys, train.pool(values)) + bias)[:, output]
    axes.fill_between(x, f - epsilon, f + epsilon, color=BLUE, alpha=0.2, linewidth=0, label=f"tube, ± {epsilon:g}")
    axes.plot(x, f, color=BLUE, label="attention f")
    if targets is None:
        certificate = certify(primal, keys, values, epsilon=epsilon, query=query)
        assert isinstance(certificate, Certificate)
        targets = certificate.targets + bias
    y = pooled_rows("targets", targets, train)[:, output]
    beyond = abs(y - f) - epsilon
    near = ROUNDING * (abs(y).max() + epsilon)
    for mark, chosen in ((INSIDE, beyond < -near), (EDGE, abs(beyond) <= near), (OUTSIDE, beyond > near)):
        if chosen.any():
            axes.plot(x[chosen], y[chosen], mark.shape, color=mark.colour, markersize=5, label=mark.label)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return axes


def duality(
    primal: Primal,
    keys: Num[Array, "N D"],
    targets: Num[Array, "rows Dv"],
    *,
    C: float,
    epsilon: float,
    query: int | None = None,
    axes: Axes | None = None,
    label: str = "",
    colour: str = BLUE,
    xlabel: str = "tolerance at which the solver stops",
    ylabel: str = "value / optimum",
    title: str = "",
) -> Axes:
    """The primal and the dual value of an SVR that Clarabel solves to ever smaller tolerances, over the optimum.

    The primal value comes down to the optimum and the dual value comes up to it. Between them is the duality gap.

    Parameters
    ----------
    primal, keys, targets, C, epsilon, query
        The SVR, as in `solve_dual`.
    axes : matplotlib's Axes, optional
        Where it is drawn.
    label, colour : str
        Of these two curves, where several SVRs share the axes.
    xlabel, ylabel, title : str
        What is written at the axes.

    Raises
    ------
    ValueError
        For what `solve_dual` refuses.

    Examples
    --------
    >>> keys, targets = np.random.default_rng(0).standard_normal((2, 7, 3))
    >>> axes = duality(Primal(), keys, targets, C=10, epsilon=0.1, axes=plt.figure().subplots())
    >>> [line.get_label() for line in axes.lines]
    ['primal value', 'dual value']
    """
    axes = plt.gca() if axes is None else axes
    problem: dict[str, Any] = dict(C=C, epsilon=epsilon, query=query)
    tolerances = 10.0 ** -np.arange(0, 11)
    P, Q = np.array([_values(primal, keys, targets, problem, tolerance) for tolerance in tolerances]).T
    name = f"{label}: " if label else ""
    axes.plot(tolerances, P / Q[-1], "o-", color=colour, markersize=4, label=f"{name}primal value")
    axes.plot(tolerances, Q / Q[-1], "s--", color=colour, markersize=4, label=f"{name}dual value")
    axes.fill_between(tolerances, Q / Q[-1], P / Q[-1], color=colour, alpha=0.15, linewidth=0)
    axes.set(xscale="log", xlim=(2, 5e-11), xlabel=xlabel, ylabel=ylabel, title=title)
    return axes


def _one_a_key(name: str, x: Float[Array, "rows ..."], count: int) -> Float[Array, "rows ..."]:
    if len(x) != count:
        raise ValueError(f"{name}: expected {count} rows, one a key; got {x.shape}")
    return x


def _support_vectors(primal: Primal, keys: Array, values: Float[Array, "N Dv"], C: float | None) -> tuple[Array, Array]:
    """Which keys have a delta_j = h(k_j) v_j other than zero, and which have one at the bound C."""
    if isinstance(primal.support, Everything):
        train = training_set(primal, keys)
        top = train.log_h.max()
        values = train.spread(train.pool(values) * np.exp(train.log_h - top)[:, None])
    elif C is not None:
        raise ValueError(f"C: expected none under {primal.support}, where each query has an SVR of its own; got {C}")
    size = abs(values).max(axis=1)
    if C is None:
        return size > ROUNDING * size.max(), np.zeros(len(size), bool)
    checks.number("C", C, above=0)
    bound = np.exp(np.log(C) - top)
    return size > ROUNDING * bound, size >= (1 - ROUNDING) * bound


def _values(
    primal: Primal, keys: Array, targets: Array, problem: dict[str, Any], tolerance: float
) -> tuple[float, float]:
    """The primal and the dual value of what Clarabel returns at a tolerance, in units of the certificate."""
    options = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tolerance)
    stopped = solve_dual(primal, keys, targets, **problem, solver_options=options)
    assert isinstance(stopped, DualSolution)
    certificate = certify(primal, keys, stopped.values, targets=targets, **problem)
    assert isinstance(certificate, Certificate)
    return certificate.primal_value, certificate.dual_value
