"""The torch version of each part of a primal, found by the part's class."""

from collections.abc import Callable
from typing import Any, TypeVar

Version = TypeVar("Version", bound=Callable[..., Any])

_TORCH_VERSIONS: dict[type, Callable[..., Any]] = {}


def register(part_class: type) -> Callable[[Version], Version]:
    """A decorator that makes a function the torch version of a kernel, a transform or a support.

    A formula that tensors understand as it is needs no second one: `register(Cauchy)(Cauchy.log_gram)`. Otherwise, by
    the kind of the part, with x (..., M, D), y (..., N, D), keys (..., n, D), valid (..., n) booleans or None where all
    keys are valid, and tensors i, j of positions that broadcast:

    - kernel: `f(kernel, x, y)` is what the part's `log_gram` gives, or its `gram` if it has none, (..., M, N).
      Where it is the method itself, a kernel that has `log_features` takes time that grows with N, not with N^2
    - transform: `f(transform, keys, valid)` is the function x -> T x, of keys and x in float32 or better (but the
      version of a Convolution, which has no statistics of the keys, takes x and returns T x: `transforms.convolve`)
    - support: `f(support, i, j)` is True where query i sees key j

    See `primal_dual.protocols` for the parts themselves, and tutorial 7 for one that is made from scratch.

    Parameters
    ----------
    part_class : type
        The class of the part, a frozen dataclass.

    Raises
    ------
    ValueError
        For what is no class.

    Examples
    --------
    >>> from primal_dual.kernels import Gaussian
    >>> register(Gaussian)(Gaussian.log_gram) is torch_version(Gaussian())
    True
    """

    if not isinstance(part_class, type):
        raise ValueError(f"register: expected the class of a part, such as Gaussian; got {part_class!r}")

    def add(function: Version) -> Version:
        _TORCH_VERSIONS[part_class] = function
        return function

    return add


def torch_version(part: object) -> Callable[..., Any]:
    """The registered torch version of a part. ValueError if its class has none."""
    function = _TORCH_VERSIONS.get(type(part))
    if function is None:
        name = type(part).__name__
        raise ValueError(f"{part}: expected a part with a torch version; add one with torch_impl.register({name})")
    return function


def registered() -> tuple[type, ...]:
    """The classes that have a torch version."""
    return tuple(_TORCH_VERSIONS)
