"""Primal: the parts of f(x) = W Phi(T x) / h(x) + b, declared once; Heads; a catalog of named ones."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from primal_dual import checks, kernels, supports, transforms
from primal_dual.kernels import EluPlusOne, Exponential, Gaussian, Taylor
from primal_dual.protocols import Kernel, PositiveKernel, SignedKernel, Support, Transform
from primal_dual.supports import Causal, Everything, Strided, Window
from primal_dual.transforms import BatchNorm, Convolution, Identity, UnitNorm, split_convolutions

PARTS = {module.__name__ for module in (kernels, supports, transforms)}


@dataclass(frozen=True)
class Primal:
    """A neural network layer f(x) = W Phi(T x) / h(x) + b, the support vector expansion of whose SVR is an attention.

    Raises ValueError for a part that does not offer what `protocols.py` asks for, and for values out of range.
    Source: arXiv 2406.13781; see tutorials 2 and 3.

    Parameters
    ----------
    kernel : Kernel
        The inner products <Phi(x), Phi(y)> of the features.
    normalizer : {"sum", "one"}
        "sum": h(x) = sum_j <Phi(T x), Phi(T k_j)>, which makes the expansion an attention. "one": h(x) = 1, which
        makes it a plain kernel SVR.
    transform : Transform or tuple of them
        The input transform T; a tuple is applied from left to right.
    support : Support
        Which keys train the SVR of which query.
    scale : int
        How many keys, one after the other, are averaged to one training point: Attention-SH.
    bias : bool
        Whether there is a b.

    Examples
    --------
    >>> Primal(transform=BatchNorm(beta=0.5), scale=2) == replace(catalog["bn+sh"], transform=BatchNorm(0.5))
    True
    """

    kernel: Kernel = Exponential()
    normalizer: str = "sum"
    transform: Transform | Convolution | tuple[Transform | Convolution, ...] = Identity()
    support: Support = Everything()
    scale: int = 1
    bias: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.transform, list):
            object.__setattr__(self, "transform", tuple(self.transform))
        if not isinstance(self.kernel, PositiveKernel | SignedKernel):
            raise ValueError(f"Primal: expected a kernel with log_gram or gram; got {self.kernel!r}")
        if self.normalizer not in ("sum", "one"):
            raise ValueError(f'Primal: expected normalizer "sum" or "one"; got {self.normalizer!r}')
        for part in split_convolutions(self.transform)[1]:
            if not hasattr(part, "fit") or isinstance(part, type):
                raise ValueError(f"Primal: expected transforms with fit; got {part!r}")
        if not hasattr(self.support, "sees") or isinstance(self.support, type):
            raise ValueError(f"Primal: expected a support with sees; got {self.support!r}")
        if isinstance(self.kernel, type):
            raise ValueError(f"Primal: expected a kernel, such as {self.kernel.__name__}(...); got the class itself")
        for each in parts_of(self):
            _expect_no_parent(each)
            _expect_nothing_learned(each)
        checks.integer("Primal: scale", self.scale, 1)
        object.__setattr__(self, "scale", int(self.scale))
        if not isinstance(self.bias, bool):
            raise ValueError(f"Primal: expected bias True or False; got {self.bias!r}")


def parts_of(primal: Primal) -> tuple[object, ...]:
    """The kernel, the transforms and the support.

    Examples
    --------
    >>> parts_of(Primal(transform=BatchNorm()))
    (Exponential(scale=None), BatchNorm(beta=1.0, eps=1e-05), Everything())
    """
    convolutions, others = split_convolutions(primal.transform)
    return (primal.kernel, *convolutions, *others, primal.support)


def _expect_no_parent(part: object) -> None:
    """ValueError for a part that inherits from another, whose quick formulas would take the place of its own."""
    parents = [each for each in type(part).__mro__[1:] if each.__module__ in PARTS]
    if parents and type(part).__module__ not in PARTS:
        got = f"{part!r}, which inherits from {parents[0].__name__}"
        raise ValueError(f"Primal: expected a part that is written whole; got {got}")


def _expect_nothing_learned(part: object) -> None:
    """ValueError for a part with torch parameters, which no model would train or save."""
    part_and_fields = (part, *getattr(part, "__dict__", {}).values())
    if any(hasattr(each, "requires_grad") or hasattr(each, "named_parameters") for each in part_and_fields):
        got = f"{type(part).__name__} with a tensor or parameters of torch"
        raise ValueError(f"Primal: expected parts of plain numbers, which are not learned; got {got}")


@dataclass(frozen=True, init=False)
class Heads:
    """Independent SVRs side by side, Heads(primal, primal, ...): multi-head attention, f = sum_s W_O^s f^s.

    Raises ValueError for anything but primals, and for none of them. Source: arXiv 2406.13781; see tutorial 3.

    Attributes
    ----------
    primals : tuple of Primal
        One a head.
    groups : tuple
        The heads by their primal, ((primal, (head, head, ...)), ...): heads of one primal can share a call.

    Examples
    --------
    >>> [head_numbers for _, head_numbers in Heads(Primal(), Primal(scale=2), Primal()).groups]
    [(0, 2), (1,)]
    """

    primals: tuple[Primal, ...]
    groups: tuple[tuple[Primal, tuple[int, ...]], ...] = field(repr=False, compare=False)

    def __init__(self, *primals: Primal) -> None:
        wrong = [primal for primal in primals if not isinstance(primal, Primal)]
        if wrong or not primals:
            raise ValueError(f"Heads: expected one Primal or more; got {wrong[0] if wrong else 'none'!r}")
        members: dict[Primal, list[int]] = {}
        for s, primal in enumerate(primals):
            try:
                members.setdefault(primal, []).append(s)
            except TypeError as error:
                expected = "expected parts that are frozen dataclasses of numbers and tuples"
                raise ValueError(f"Heads: {expected}; got {primal}: {error}") from error
        object.__setattr__(self, "primals", primals)
        object.__setattr__(self, "groups", tuple((primal, tuple(heads)) for primal, heads in members.items()))

    def __len__(self) -> int:
        return len(self.primals)

    def __iter__(self) -> Iterator[Primal]:
        return iter(self.primals)


class Catalog(dict[str, Primal | Heads]):
    """Primals by name. An unknown name is a ValueError that lists the near ones.

    Examples
    --------
    >>> catalog["bm"]
    Traceback (most recent call last):
    ValueError: unknown attention 'bm': did you mean bn? expected one of softmax, taylor, linear, ...
    """

    def __missing__(self, name: object) -> Primal | Heads:
        near = difflib.get_close_matches(str(name), self, n=4, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"unknown attention {name!r}: {hint}expected one of {', '.join(self)}")


_TAPS = (0.25, 0.5, 0.25)

catalog = Catalog(
    {
        "softmax": Primal(),
        "taylor": Primal(Taylor(4)),
        "linear": Primal(EluPlusOne()),
        "rbf": Primal(Gaussian()),
        "qk-norm": Primal(Exponential(scale=10), transform=UnitNorm()),
        "multi-head": Heads(Primal(), Primal()),
        "window": Primal(support=Window(3)),
        "strided": Primal(support=Strided(3)),
        "causal": Primal(support=Causal()),
        "conv1d": Primal(transform=Convolution(_TAPS)),
        "conv2d": Primal(transform=Convolution(tuple(tuple(a * b for b in _TAPS) for a in _TAPS), width=4)),
        "bn": Primal(transform=BatchNorm()),
        "sh": Primal(scale=2),
        "bn+sh": Primal(transform=BatchNorm(), scale=2),
        "linear-bn": Primal(EluPlusOne(), transform=BatchNorm()),
        "linear-sh": Primal(EluPlusOne(), scale=2),
        "linear-bn+sh": Primal(EluPlusOne(), transform=BatchNorm(), scale=2),
        "window-bn": Primal(transform=BatchNorm(), support=Window(3)),
        "window-sh": Primal(support=Window(3), scale=2),
        "causal-bn": Primal(transform=BatchNorm(), support=Causal()),
        "causal-sh": Primal(support=Causal(), scale=2),
    }
)


_BUILT_IN = frozenset(catalog)
COMPARED = ("softmax", "bn", "sh", "bn+sh")  # what the paper compares: trained and measured unless others are named


def register_attention(name: str, primal: Primal | Heads) -> None:
    """Add a primal to the catalog: its name may then stand wherever one of the catalog may, in this process.

    Parameters
    ----------
    name : str
        Letters, digits and the signs . + - _ alone.
    primal : Primal or Heads
        What it names.

    Raises
    ------
    ValueError
        For other characters, for what is no primal, and for a name that another primal has.

    Examples
    --------
    >>> register_attention("narrow", Primal(Gaussian(0.5)))
    >>> heads("narrow", 2).primals[1].kernel
    Gaussian(bandwidth=0.5)
    >>> del catalog["narrow"]
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]+", name):
        raise ValueError(f"name: expected letters, digits and . + - _ alone; got {name!r}")
    if not isinstance(primal, Primal | Heads):
        raise ValueError(f"primal: expected a Primal or Heads; got {primal!r}")
    if name in catalog and catalog[name] != primal:
        mend = "" if name in _BUILT_IN else f"; del catalog[{name!r}] frees it"
        raise ValueError(f"{name}: expected a name that no other primal has; got that of {catalog[name]}{mend}")
    catalog[name] = primal


def is_built_in(attention: object) -> bool:
    """Whether it is a name that the catalog has from the start, not one that `register_attention` gave.

    Examples
    --------
    >>> is_built_in("sh"), is_built_in(catalog["sh"])
    (True, False)
    """
    return isinstance(attention, str) and attention in _BUILT_IN


def members_of(primal: str | Primal | Heads) -> tuple[Primal, ...]:
    """The primals of a name or of heads, which are one at least.

    Examples
    --------
    >>> members_of("bn") == (catalog["bn"],)
    True
    """
    declared = catalog[primal] if isinstance(primal, str) else primal
    return tuple(declared) if isinstance(declared, Heads) else (declared,)


def heads(primal: str | Primal | Heads, count: int, scales: Sequence[int] = (1, 2, 4, 8)) -> Heads:
    """The `count` heads of a layer. Each has the same Primal, but for a built-in name with "sh" the scales differ.

    Parameters
    ----------
    primal : str, Primal or Heads
        A built-in name with "sh" gives the heads different scales.
    count : int
        The number of heads, 1 or more.
    scales : sequence of int
        n of them, of which head s then has the one at place floor(n s / count), from 0.

    Raises
    ------
    ValueError
        For an unknown name, for Heads of another number, and for no scale.

    Examples
    --------
    >>> [head.scale for head in heads("sh", 8)]
    [1, 1, 2, 2, 4, 4, 8, 8]
    """
    checks.integer("heads: count", count, 1)
    if len(scales) == 0:
        raise ValueError("heads: scales: expected one or more; got none")
    declared = catalog[primal] if isinstance(primal, str) else primal
    if isinstance(declared, Heads):
        if isinstance(primal, str):
            return Heads(*(declared.primals[s % len(declared)] for s in range(count)))
        if len(declared) != count:
            raise ValueError(f"heads: expected Heads of {count}; got {len(declared)}")
        return declared
    if is_built_in(primal) and declared.scale > 1:
        return Heads(*(replace(declared, scale=scales[len(scales) * s // count]) for s in range(count)))
    return Heads(*[declared] * count)
