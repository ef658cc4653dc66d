"""How complex the heads of a model are as SVRs: norm, penalty, support vectors, and how many keys matter."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from primal_dual.certificates.certificate import Certificate
from torch_impl.certificate import HeadCertificate, certify_module

TUBE = 0.05  # half its width, as a fraction of the range of a head's outputs
MOST = 0.9  # of the sum of |delta|
LAST = -1


class Head(NamedTuple):
    """One head of a model on one example, as the SVR of its last query.

    Attributes
    ----------
    module : str
        The name of its attention.
    example, head : int
        Which example of the batch, and which head.
    relative_gap : float
        The largest of those of all queries.
    log_norm : float
        log |W|.
    log_C : float
        log C, of the smallest penalty that its values need.
    support_vectors : float
        The fraction of all delta_jd that are not zero, if the SVR is solved anew at this penalty with a tube of half
        the width TUBE.
    support_keys : float
        The fraction of the keys with such a delta for some output.
    keys, most_keys : int
        How many keys there are, and how many of them carry 90% of the sum of all |delta|.
    """

    module: str
    example: int
    head: int
    relative_gap: float
    log_norm: float
    log_C: float
    support_vectors: float
    support_keys: float
    keys: int
    most_keys: int


def describe_heads(module: torch.nn.Module, x: Any, track: Callable[[Any], Iterable[Any]] = iter) -> list[Head]:
    """Certify every head of a module, and solve its SVR anew with a tube.

    Parameters
    ----------
    module, x
        As for `certify_module`.
    track : callable
        Wraps each list that is gone through, to show progress.

    Raises
    ------
    ValueError
        As `certify_module`.

    Examples
    --------
    >>> from torch_impl import MultiheadAttention
    >>> layer, x = MultiheadAttention(8, 2), torch.linspace(-1, 1, 40).reshape(5, 1, 8)
    >>> [head.keys for head in describe_heads(layer, (x, x, x))]
    [5, 5]
    """
    worst = last = certify_module(module, x, track=track)
    if any(each.certificate.query is not None for each in worst):
        last = certify_module(module, x, query=LAST, track=track)
    return [_described(*each) for each in track(list(zip(worst, last, strict=True)))]


def _described(worst: HeadCertificate, last: HeadCertificate) -> Head:
    certificate = last.certificate
    used = certificate.support_vectors(TUBE * float(np.ptp(certificate.targets)))
    return Head(
        last.module,
        last.example,
        last.head,
        worst.certificate.relative_gap,
        certificate.log_norm,
        certificate.log_C,
        float(used.mean()),
        float(used.any(axis=1).mean()),
        len(certificate.delta),
        most_keys(certificate),
    )


def most_keys(certificate: Certificate) -> int:
    """The smallest number of keys that carry 90% of the sum of all |delta|."""
    each = np.sort(abs(certificate.delta).sum(axis=1))[::-1].cumsum()
    return int(np.searchsorted(each, MOST * each[-1]) + 1)
