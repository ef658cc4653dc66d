"""The figure of `primal-dual demo`: an attention trained by convex optimisation, drawn three ways."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from primal_dual.expansion import attention, attention_weights
from primal_dual.primal import Primal, catalog
from primal_dual.svr.certificate import Certificate, certify
from primal_dual.svr.solutions import DualSolution
from primal_dual.svr.solve import solve_dual
from primal_dual.svr.training_sets import training_set
from primal_dual.types import Array, Float

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"  # safe for colour-blind readers
NAMES = {"softmax": "Softmax attention", "bn": "Attention-BN", "sh": "Attention-SH"}


def draw(keys: Float[Array, "N D"], targets: Float[Array, "N Dv"], C: float = 10.0, epsilon: float = 0.1) -> Figure:
    """A row each for softmax, BN and SH: forecast against truth, attention map, primal and dual value meeting.

    The output shown is the one of largest variance.
    """
    figure = Figure(figsize=(13, 10), layout="constrained")
    output = int(np.argmax(targets.var(axis=0)))
    for (name, title), axes in zip(NAMES.items(), figure.subplots(len(NAMES), 3), strict=True):
        primal = catalog[name]
        assert isinstance(primal, Primal)
        problem: dict[str, Any] = dict(C=training_set(primal, keys).penalty(C), epsilon=epsilon)
        solution = solve_dual(primal, keys, targets, **problem)
        assert isinstance(solution, DualSolution)
        _forecast(axes[0], primal, keys, targets, solution, epsilon, output)
        _map(axes[1], figure, primal, keys, solution, problem["C"], output)
        _duality(axes[2], primal, keys, targets, problem)
        axes[0].set_title(f"{title}: forecast of output {output}")
    return figure


def _forecast(
    axes: Axes, primal: Primal, keys: Array, targets: Array, solution: DualSolution, epsilon: float, output: int
) -> None:
    frames = np.arange(len(keys))
    truth, f = targets[:, output], (attention(primal, keys, keys, solution.values) + solution.bias)[:, output]
    axes.fill_between(frames, f - epsilon, f + epsilon, color=BLUE, alpha=0.2, label="tube, ±epsilon")
    axes.plot(frames, f, color=BLUE, label="attention")
    axes.plot(frames, truth, "o", color=ORANGE, markersize=4, label="next frame (target)")
    axes.set(xlabel="frame", ylabel="standardised value")
    axes.legend(fontsize="small")


def _map(
    axes: Axes, figure: Figure, primal: Primal, keys: Array, solution: DualSolution, C: float, output: int
) -> None:
    image = axes.imshow(attention_weights(primal, keys, keys), cmap="cividis", vmin=0, aspect="auto")
    figure.colorbar(image, ax=axes, label="attention weight")
    used = np.unique(np.nonzero(solution.values[:, output])[0])
    size = (solution.alpha + solution.alpha_tilde)[:, output] / C
    pooled = np.arange(len(keys)) // primal.scale
    for marker, name, colour, chosen in (
        ("v", "free support vector", GREEN, (size[pooled] > 1e-6) & (size[pooled] < 1 - 1e-6)),
        ("s", "support vector at the bound C", ORANGE, size[pooled] >= 1 - 1e-6),
    ):
        marked = used[chosen[used]]
        axes.plot(marked, np.full(len(marked), -1.2), marker, color=colour, markersize=5, clip_on=False, label=name)
    axes.set(xlabel="key (frame)", ylabel="query (frame)", ylim=(len(keys) - 0.5, -0.5))
    axes.set_title("attention map, support vectors above", pad=14)
    axes.legend(fontsize="small", loc="lower left")


def _duality(axes: Axes, primal: Primal, keys: Array, targets: Array, problem: dict[str, Any]) -> None:
    """Both values of the iterate at which Clarabel stops at ever smaller tolerances, over the optimum."""
    tolerances = 10.0 ** -np.arange(0, 11)
    values = []
    for tolerance in tolerances:
        options = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tolerance)
        stopped = solve_dual(primal, keys, targets, **problem, solver_options=options)
        assert isinstance(stopped, DualSolution)
        certificate = certify(primal, keys, stopped.values, targets=targets, **problem)
        assert isinstance(certificate, Certificate)
        values.append((certificate.primal_value, certificate.dual_value))
    optimum = values[-1][1]
    P, D = np.array(values).T / optimum
    axes.plot(tolerances, P, "o-", color=ORANGE, label="primal value")
    axes.plot(tolerances, D, "s-", color=BLUE, label="dual value")
    axes.axhline(1, color=GREY, linewidth=0.8)
    axes.set(
        xscale="log",
        xlabel="tolerance at which the solver stops",
        ylabel="value / optimum",
        title="primal and dual value meet",
    )
    axes.invert_xaxis()
    axes.legend(fontsize="small")
