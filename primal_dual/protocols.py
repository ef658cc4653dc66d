"""What a part of a primal must offer. Read this page before you write a part of your own.

A part is a frozen dataclass, so that primals can be compared and hashed. It holds numbers, tuples and formulas, but
never keys, and does not write into the arrays that it is given, which are read-only. It does not inherit from a part of
this package, whose quick formulas are for that part alone. Throughout, D is the number of features of a key, M the
number of queries and N the number of keys.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from primal_dual.types import Array, Bool, Float, Int


@runtime_checkable
class PositiveKernel(Protocol):
    """A kernel <Phi(x), Phi(y)> > 0, given by its logarithm, so that nothing overflows at any size of x and y."""

    def log_gram(self, x: Float[Array, "... M D"], y: Float[Array, "... N D"]) -> Float[Array, "... M N"]:
        """log <Phi(x_i), Phi(y_j)> for every pair (i, j)."""
        ...


@runtime_checkable
class SignedKernel(Protocol):
    """A kernel <Phi(x), Phi(y)> that may be zero or negative."""

    def gram(self, x: Float[Array, "... M D"], y: Float[Array, "... N D"]) -> Float[Array, "... M N"]:
        """<Phi(x_i), Phi(y_j)> for every pair (i, j)."""
        ...


Kernel = PositiveKernel | SignedKernel


@runtime_checkable
class FiniteFeatures(Protocol):
    """What a kernel offers besides, if its feature map Phi is finite: then the primal is solved in W itself."""

    def feature_count(self, dimension: int) -> int:
        """F, the number of features of a key of `dimension` numbers."""
        ...

    def features(self, x: Float[Array, "... N D"]) -> Float[Array, "... N F"]:
        """Phi(x_j) for every token j."""
        ...


@runtime_checkable
class PositiveFeatures(FiniteFeatures, Protocol):
    """What it offers if Phi is positive, too: attention in linear time, without overflow."""

    def log_features(self, x: Float[Array, "... N D"]) -> Float[Array, "... N F"]:
        """log Phi(x_j) for every token j."""
        ...


@runtime_checkable
class Transform(Protocol):
    """The input transform T, fitted on the training keys of an SVR and applied to its queries and keys alike.

    T acts on each token by itself: (T x)_i depends on x_i and on the keys that T was fitted on, and not on the other
    tokens of x. `Convolution` alone mixes tokens.

    `independent_of_keys = True` on the class says that T does not depend on the keys, so that queries with training
    sets of their own can share it.
    """

    def fit(
        self, keys: Float[Array, "... N D"], valid: Bool[Array, "... N"]
    ) -> Callable[[Float[Array, "... M D"]], Float[Array, "... M D"]]:
        """The function x -> T x.

        `valid` is True for the keys that count. The others are padding, in whose place copies of the first valid key
        stand: statistics leave them out.
        """
        ...


@runtime_checkable
class Support(Protocol):
    """Which keys train the SVR of which query, by position: the same in every call."""

    def sees(self, i: Int[Array, "..."], j: Int[Array, "..."]) -> Bool[Array, "..."]:
        """True where key j trains the SVR of query i, for whole numbers that broadcast."""
        ...
