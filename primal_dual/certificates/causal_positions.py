"""The duality gaps of all positions of a causal head in O(N^2 Dv), by running sums.

The SVR of query i has the keys 0, ..., i: one more than that of query i - 1. So its |W|^2, the normalisers h(k_j) and
the outputs f(k_j) are those of the position before and one term more. Where T depends on the training set, as batch
normalisation does, or keys are averaged, there is no such step.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from primal_dual.certificates.gap import Expansion, judge
from primal_dual.kernel_matrix import NEAR_ZERO, kernel_values
from primal_dual.primal import Primal
from primal_dual.protocols import PositiveKernel
from primal_dual.supports import Causal
from primal_dual.svr.optimality import relative_gap
from primal_dual.svr.training_sets import TrainingSet, pooled_rows, training_set
from primal_dual.transforms import independent_of_keys, split_convolutions
from primal_dual.types import Array, Float

KEYS_AT_A_TIME = 64
LARGEST_STEP = 300  # a term may be so much larger than the unit of a running sum, in logarithms, before that is raised


def has_running_sums(primal: Primal) -> bool:
    """Whether the SVR of a query is that of the query before and one key more."""
    is_fixed = independent_of_keys(split_convolutions(primal.transform)[1])
    return isinstance(primal.support, Causal) and primal.scale == 1 and is_fixed


def gaps_by_running_sums(
    primal: Primal,
    keys: Float[Array, "N D"],
    values: Float[Array, "N Dv"],
    targets: Float[Array, "rows Dv"] | None,
    C: float | None,
    epsilon: float,
) -> Float[np.ndarray, " N"]:
    """The relative gap of each position, as `certify` judges it; NaN where that refuses the numbers.

    Parameters
    ----------
    primal : Primal
        One that `has_running_sums`.
    keys, values, targets, C, epsilon
        As in `certify`.
    """
    train = training_set(primal, keys, len(keys) - 1)
    y = None if targets is None else pooled_rows("targets", targets, train)
    sums, gaps = _RunningSums(train, values), np.full(len(keys), np.nan)
    is_fitted = y is None and C is None and not epsilon and not primal.bias
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for i, row, column in _entries(train):
            sums.add(i, row, column)
            if not sums.is_sound(i):
                continue
            if is_fitted:
                gaps[i] = sums.fitted_gap(i)
            else:
                here = None if y is None else y[: i + 1]
                gaps[i] = judge(sums.expansion(i), here, C, epsilon, primal.bias).relative_gap
    return gaps


class _Entries(NamedTuple):
    """Entries w exp(log) of the kernel matrix: w = 1 for a positive kernel, log = 0 for a signed one."""

    w: Float[np.ndarray, " n"]
    log: Float[np.ndarray, " n"]


def _entries(train: TrainingSet) -> Iterator[tuple[int, _Entries, _Entries]]:
    """What each key brings to the kernel matrix: i, its row K_i0, ..., K_ii, and its column K_0i, ..., K_(i-1)i."""
    keys = train.transformed_keys
    for start in range(0, len(keys), KEYS_AT_A_TIME):
        block, seen = keys[start : start + KEYS_AT_A_TIME], keys[: start + KEYS_AT_A_TIME]
        rows = _kernel(train.primal, block, seen)
        columns = [np.ascontiguousarray(x.T) for x in _kernel(train.primal, seen, block)]
        for b, i in enumerate(range(start, len(seen))):
            yield i, _Entries(*(x[b, : i + 1] for x in rows)), _Entries(*(x[b, :i] for x in columns))


def _kernel(primal: Primal, x: Float[Array, "M D"], y: Float[Array, "n D"]) -> list[Float[np.ndarray, "M n"]]:
    """w and log of the kernel matrix."""
    a = kernel_values(primal.kernel, x, y)
    return [np.ones(a.shape), a] if isinstance(primal.kernel, PositiveKernel) else [a, np.zeros(a.shape)]


class _RunningSums:
    """The sums over the keys l <= i that make the SVR of position i, as i grows, for its training points j <= i.

    The outputs f, the normalisers h and |W|^2 are summed apart from each other, so that the gap is a real check. A sum
    has a unit, the logarithm of what it is measured in; it is raised when a term is much larger: nothing overflows.
    """

    def __init__(self, train: TrainingSet, values: Float[np.ndarray, "N Dv"]) -> None:
        N = len(values)
        self.is_sum = train.primal.normalizer == "sum"
        self.is_positive = isinstance(train.primal.kernel, PositiveKernel)
        self.values, self.largest_value = values, abs(values).max(axis=1)
        self.log_lengths = train.log_lengths(train.keys)
        # f(k_j) = numerator_j / denominator_j, both in units of exp(unit_j)
        self.numerator, self.denominator, self.unit = np.empty_like(values), np.empty(N), np.empty(N)
        self.product, self.one = np.empty_like(values), np.ones(values.shape[1])  # room, and what sums a row
        self.log_h = np.empty(N)  # of a positive kernel
        self.h, self.size = np.empty(N), np.empty(N)  # of a signed one, and the sum of the absolute terms of h
        self.square, self.square_unit = 0.0, -np.inf  # |W|^2

    def add(self, i: int, row: _Entries, column: _Entries) -> None:
        """Key i joins the sums of the points before it, by its column, and begins its own, by its row."""
        self._add_to_outputs(i, row, column)
        self._add_to_normalizers(i, row, column)
        self._add_to_square(i, row, column)

    def is_sound(self, i: int) -> bool:
        """Whether |W|^2 is finite and no h is near zero."""
        cancels = self.is_sum and not self.is_positive and abs(self.h[: i + 1]) <= NEAR_ZERO * self.size[: i + 1]
        return bool(np.isfinite(self.square)) and not np.any(cancels)

    def expansion(self, i: int) -> Expansion:
        """The values as the SVR of position i."""
        h, log_h, log_scale, square = self._in_one_unit(i)
        f = self.numerator[: i + 1] * self._factor(i)[:, None]
        delta = h[:, None] * self.values[: i + 1]
        return Expansion(delta, f, square, log_h[:, None], log_scale, self.log_lengths[: i + 1])

    def fitted_gap(self, i: int) -> float:
        """The relative gap at the smallest C and the targets y = f, which leave no slack; `judge` without its arrays.

        P = |W|^2 / 2,    Q = sum_j y_j.delta_j - |W|^2 / 2
        """
        h, _, _, square = self._in_one_unit(i)
        numerator, factor, room = self.numerator[: i + 1], self._factor(i), self.product[: i + 1]
        y_delta = (np.multiply(numerator, self.values[: i + 1], out=room) @ self.one) @ (factor * h)
        absolute_y = (np.abs(numerator, out=room) @ self.one) @ abs(factor)
        C = (abs(h) * self.largest_value[: i + 1]).max()
        return relative_gap(square / 2, y_delta - square / 2, C * absolute_y)

    def _in_one_unit(self, i: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], float, float]:
        """h in units of exp(log_scale), log |h|, log_scale, and |W|^2 in the same units."""
        if not self.is_sum:
            sign, log_h = np.ones(i + 1), np.zeros(i + 1)
        elif self.is_positive:
            sign, log_h = np.ones(i + 1), self.log_h[: i + 1]
        else:
            sign, log_h = np.sign(self.h[: i + 1]), np.log(abs(self.h[: i + 1]))
        log_scale = log_h.max()
        return sign * np.exp(log_h - log_scale), log_h, log_scale, self.square * np.exp(self.square_unit - log_scale)

    def _factor(self, i: int) -> Float[np.ndarray, " n"]:
        """What the numerators are to be multiplied by."""
        return 1 / self.denominator[: i + 1] if self.is_sum else np.exp(self.unit[: i + 1])

    def _add_to_outputs(self, i: int, row: _Entries, column: _Entries) -> None:
        raised = column.log > self.unit[:i] + LARGEST_STEP
        if raised.any():
            unit = np.where(raised, column.log, self.unit[:i])
            factor = np.exp(self.unit[:i] - unit)
            self.numerator[:i] *= factor[:, None]
            self.denominator[:i] *= factor
            self.unit[:i] = unit
        weight = column.w * np.exp(column.log - self.unit[:i])
        self.numerator[:i] += np.dot(weight[:, None], self.values[[i]], out=self.product[:i])
        self.denominator[:i] += weight
        self.unit[i] = row.log.max()
        weight = row.w * np.exp(row.log - self.unit[i])
        self.numerator[i], self.denominator[i] = weight @ self.values[: i + 1], weight.sum()

    def _add_to_normalizers(self, i: int, row: _Entries, column: _Entries) -> None:
        if self.is_positive:
            self.log_h[:i] = np.logaddexp(self.log_h[:i], column.log)
            self.log_h[i] = row.log.max() + np.log(np.exp(row.log - row.log.max()).sum())
        else:
            self.h[:i] += column.w
            self.size[:i] += abs(column.w)
            self.h[i], self.size[i] = row.w.sum(), abs(row.w).sum()

    def _add_to_square(self, i: int, row: _Entries, column: _Entries) -> None:
        """|W|^2 = sum_{j, l <= i} K_jl v_j.v_l grows by the row and the column of key i."""
        products = self.values[: i + 1] @ self.values[i]
        top = max(row.log.max(), column.log.max(initial=-np.inf))
        if top > self.square_unit + LARGEST_STEP:
            self.square, self.square_unit = self.square * np.exp(self.square_unit - top), top
        self.square += row.w * np.exp(row.log - self.square_unit) @ products
        self.square += column.w * np.exp(column.log - self.square_unit) @ products[:i]
