"""What the solvers return: the optimum of the primal, of the dual, and those of several heads side by side."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from primal_dual.svr.features import Features
from primal_dual.svr.training_sets import TrainingSet
from primal_dual.types import Array, Float


class ConvergenceWarning(UserWarning):
    """A solution whose relative gap is larger than asked for."""


@dataclass(frozen=True, eq=False)
class PrimalSolution:
    """The optimum of the primal.

    Attributes
    ----------
    weight : array, (Dv, F)
        W. F counts the features of the kernel where they are finite and few; else W is in the coordinates of an
        orthonormal basis of the span of the training points, which contains the optimum (see `features.py`).
    bias : array, (Dv,)
        b, zero without a bias.
    value : float
        The primal value, summed over outputs.
    relative_gap : float
        Between it and the dual value of the multipliers.
    """

    weight: np.ndarray
    bias: np.ndarray
    value: float
    relative_gap: float
    _features: Features = field(repr=False)

    def predict(self, x: Float[Array, "M D"]) -> Float[Array, "M Dv"]:
        """f(x) = W Phi(T x) / h(x) + b. ValueError where Phi(T x) / h(x) is too large for a float."""
        return self._features(self._features.train.convolve(x)) @ self.weight.T + self.bias


@dataclass(frozen=True, eq=False)
class DualSolution:
    """The optimum of the dual.

    Attributes
    ----------
    alpha, alpha_tilde : arrays, (n, Dv)
        The multipliers, between 0 and C.
    values : array, (N, Dv)
        v_j = (alpha_j - alpha~_j) / h(k_j), constant over a pool and zero outside the support:
        attention(primal, q, keys, values) + bias predicts.
    bias : array, (Dv,)
        b, zero without a bias.
    value : float
        The dual value, summed over outputs.
    relative_gap : float
        Between it and the primal value of the expansion.
    """

    alpha: np.ndarray
    alpha_tilde: np.ndarray
    values: np.ndarray
    bias: np.ndarray
    value: float
    relative_gap: float
    _training_set: TrainingSet = field(repr=False)

    def predict(self, x: Float[Array, "M D"]) -> Float[Array, "M Dv"]:
        """f(x) = sum_j v_j <Phi(T x), Phi(T k_j)> / h(x) + b."""
        train = self._training_set
        return train.attend(train.convolve(x), train.pool(self.values)) + self.bias


@dataclass(frozen=True, eq=False)
class HeadSolutions:
    """The solutions of the SVRs of Heads: `heads` holds them, and the properties put them together."""

    heads: tuple

    @property
    def value(self) -> float:
        """The sum over heads."""
        return sum(head.value for head in self.heads)

    @property
    def relative_gap(self) -> float:
        """The largest of the heads'."""
        return max(head.relative_gap for head in self.heads)

    @property
    def bias(self) -> Any:
        """(H, Dv)."""
        return self._stacked("bias")

    def predict(self, x: Float[Array, "H M D"]) -> Float[Array, "H M Dv"]:
        """f^s(x_s) for each head s."""
        check_head_axis(self.heads, x=x)
        return np.stack([head.predict(one) for head, one in zip(self.heads, x, strict=True)])

    def _stacked(self, name: str) -> Any:
        """The heads' arrays along a head axis, or a tuple of them where they differ in shape, as pools do."""
        each = [getattr(head, name) for head in self.heads]
        return np.stack(each) if len({np.shape(x) for x in each}) == 1 else tuple(each)


class PrimalHeadSolutions(HeadSolutions):
    """The PrimalSolution of each head."""

    @property
    def weight(self) -> Any:
        """(H, Dv, F)."""
        return self._stacked("weight")


class DualHeadSolutions(HeadSolutions):
    """The DualSolution of each head."""

    @property
    def alpha(self) -> Any:
        """(H, n, Dv)."""
        return self._stacked("alpha")

    @property
    def alpha_tilde(self) -> Any:
        """(H, n, Dv)."""
        return self._stacked("alpha_tilde")

    @property
    def values(self) -> Any:
        """(H, N, Dv)."""
        return self._stacked("values")


def check_head_axis(heads: Any, **arrays: Any) -> None:
    """ValueError for arrays without a first axis of one entry a head."""
    for name, x in arrays.items():
        if np.ndim(x) < 1 or len(x) != len(heads) or any(np.ndim(one) != 2 for one in x):
            got = np.shape(x) if np.ndim(x) else type(x).__name__
            raise ValueError(f"{name}: expected ({len(heads)}, N, ...), one of each head of Heads; got {got}")
