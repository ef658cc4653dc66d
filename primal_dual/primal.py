"""Primal: the parts of f(x) = W Phi(T x)/h(x) + b, declared once; Heads; a catalog of named ones."""

import difflib
from dataclasses import dataclass, field, replace

from primal_dual import checks
from primal_dual.kernels import EluPlusOne, Exponential, Gaussian, Taylor
from primal_dual.supports import Causal, Everything, Strided, Window
from primal_dual.transforms import BatchNorm, Convolution, Identity, UnitNorm, parts


@dataclass(frozen=True)
class Primal:
    """f(x) = W Phi(T x)/h(x) + b, a neural network layer whose SVR's support vector expansion is an attention.

    kernel: <Phi(x), Phi(y)>.  normalizer: "sum", h(x) = sum_j <Phi(T x), Phi(T k_j)>, which makes the expansion an
    attention; or "one", h(x) = 1, a plain kernel SVR.  transform: T, or a tuple of them, applied left to right.
    support: which keys train the SVR of which query.  scale: how many keys, by position, are averaged to one training
    point (Attention-SH).  bias: whether there is a b.  Source: arXiv 2406.13781.
    """

    kernel: object = Exponential()
    normalizer: str = "sum"
    transform: object = Identity()
    support: object = Everything()
    scale: int = 1
    bias: bool = False

    def __post_init__(self):
        if isinstance(self.transform, list):
            object.__setattr__(self, "transform", tuple(self.transform))
        if not (hasattr(self.kernel, "log_gram") or hasattr(self.kernel, "gram")):
            raise ValueError(f"Primal: expected a kernel with log_gram or gram; got {self.kernel!r}")
        if self.normalizer not in ("sum", "one"):
            raise ValueError(f'Primal: expected normalizer "sum" or "one"; got {self.normalizer!r}')
        for part in parts(self.transform)[1]:
            if not hasattr(part, "fit") or isinstance(part, type):
                raise ValueError(f"Primal: expected transforms with fit; got {part!r}")
        if not hasattr(self.support, "sees") or isinstance(self.support, type):
            raise ValueError(f"Primal: expected a support with sees; got {self.support!r}")
        if isinstance(self.kernel, type):
            raise ValueError(f"Primal: expected a kernel, such as {self.kernel.__name__}(...); got the class itself")
        checks.integer("Primal: scale", self.scale, 1)
        if not isinstance(self.bias, bool):
            raise ValueError(f"Primal: expected bias True or False; got {self.bias!r}")


@dataclass(frozen=True, init=False)
class Heads:
    """Independent SVRs side by side, Heads(primal, primal, ...): multi-head attention, f = sum_s W_O^s f^s.

    groups: the heads by their primal, ((primal, (head, head, ...)), ...); those of one primal can share a call.
    """

    primals: tuple
    groups: tuple = field(repr=False, compare=False)

    def __init__(self, *primals):
        wrong = [primal for primal in primals if not isinstance(primal, Primal)]
        if wrong or not primals:
            raise ValueError(f"Heads: expected one Primal or more; got {wrong[0] if wrong else 'none'!r}")
        members = {}
        for s, primal in enumerate(primals):
            members.setdefault(primal, []).append(s)
        object.__setattr__(self, "primals", primals)
        object.__setattr__(self, "groups", tuple((primal, tuple(heads)) for primal, heads in members.items()))

    def __len__(self):
        return len(self.primals)

    def __iter__(self):
        return iter(self.primals)


class Catalog(dict):
    """Names of primals. An unknown name is a ValueError that lists the near ones."""

    def __missing__(self, name):
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


def heads(primal, count):
    """The `count` heads of a layer, from a catalog name, a Primal or Heads.

    Each head gets the same Primal. For a name with "sh", head s has the scale (1, 2, 4, 8)[4 s // count].
    Raises ValueError for an unknown name and for Heads of another number.
    """
    checks.integer("heads: count", count, 1)
    declared = catalog[primal] if isinstance(primal, str) else primal
    if isinstance(declared, Heads):
        if isinstance(primal, str):
            return Heads(*(declared.primals[s % len(declared)] for s in range(count)))
        if len(declared) != count:
            raise ValueError(f"heads: expected Heads of {count}; got {len(declared)}")
        return declared
    if isinstance(primal, str) and declared.scale > 1:
        return Heads(*(replace(declared, scale=(1, 2, 4, 8)[4 * s // count]) for s in range(count)))
    return Heads(*[declared] * count)
