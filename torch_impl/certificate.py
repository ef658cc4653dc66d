"""Certify the heads of a trained module: which SVRs its keys and values solve, and how exactly."""

import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from primal_dual.certificates.certificate import Certificate, certify
from primal_dual.primal import Primal
from primal_dual.protocols import Support
from primal_dual.sequence import convolve_sequence
from primal_dual.supports import Causal, Everything, Mask, visibility_table
from primal_dual.transforms import split_convolutions
from primal_dual.types import Bool, Float
from torch_impl.fast.visibility import Visibility, combine_masks
from torch_impl.own_parts import expect_agreement
from torch_impl.recorder import Call, recording


class HeadCertificate(NamedTuple):
    """The certificate of one head.

    If there is padding, a convolution is no longer part of the certificate's primal, so that its error_bound takes x
    after the convolution.

    Attributes
    ----------
    module : str
        The name of the module that the head is in.
    example, head : int
        Which example of the batch, and which head.
    certificate : Certificate
        As `primal_dual.certify` returns it.
    """

    module: str
    example: int
    head: int
    certificate: Certificate


class ModuleCertificates(tuple[HeadCertificate, ...]):
    """A HeadCertificate for each head, module and example; printed as a one-line summary."""

    def __repr__(self) -> str:
        if not self:
            return "0 SVRs: no query sees a key"
        worst = max(self, key=lambda each: each.certificate.relative_gap)
        modules = len({each.module for each in self})
        return (
            f"{len(self)} SVRs of {modules} attention module{'s' * (modules > 1)}: worst relative gap "
            f"{worst.certificate.relative_gap:.1e}, at {worst.module}, example {worst.example}, head {worst.head}"
        )


def certify_module(
    module: nn.Module, x: Any, *, query: int | None = None, track: Callable[[Any], Iterable[Any]] = iter
) -> ModuleCertificates:
    """Run a module once and certify every head of every attention in it, in float64.

    Each head's keys and values are the optimum of an SVR without a bias; its certificate has the targets, the gap and
    an error bound. The module runs in eval mode, without gradients, and then has the modes that it had.
    Source: arXiv 2406.13781; see tutorial 6.

    Parameters
    ----------
    module : nn.Module
        Its attention must be torch_impl's, as it is after `replace_attention`.
    x : tensor, tuple, list or mapping
        The argument of the module, a tuple or list of them, or a mapping of named ones.
    query : int, optional
        Where each query has an SVR of its own, as in causal attention: which is meant, from the end if it is negative.
        Without it all are certified and the one with the largest gap is returned.
    track : callable
        Wraps the list of attentions that ran, to show progress.

    Returns
    -------
    ModuleCertificates
        A tuple. A head in which no query sees a key is left out.

    Raises
    ------
    ValueError
        If no attention of torch_impl ran; for a mask with finite weights, which has no primal; for a part of one's own
        that is another in torch than in NumPy; and for a query that is not there.

    Examples
    --------
    >>> from torch_impl import MultiheadAttention
    >>> layer, x = MultiheadAttention(8, 2, primal="bn"), torch.linspace(-1, 1, 40).reshape(5, 1, 8)
    >>> [each.certificate.relative_gap < 1e-9 for each in certify_module(layer, (x, x, x))]
    [True, True]
    """
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"certify_module: expected an nn.Module; got {module!r}")
    with recording(module) as calls, torch.no_grad():
        modes = {each: each.training for each in module.modules()}
        module.eval()
        try:
            _run(module, x)
        finally:
            for each, mode in modes.items():
                each.training = mode
    if not calls:
        expected = "expected a module with torch_impl's attention inside, as replace_attention puts it there"
        raise ValueError(f"certify_module: {expected}; got {type(module).__name__}")
    return ModuleCertificates(each for name, call in track(calls) for each in _certify_call(name, call, query))


def _run(module: nn.Module, x: Any) -> None:
    if isinstance(x, Mapping):
        module(**x)
    elif isinstance(x, tuple | list):
        module(*x)
    else:
        module(x)


class _Head(NamedTuple):
    """What one head of one example attended with, as arrays.

    valid (N,): True for a key that is not padding. allowed (M, N): True where the call let a query attend to a key.
    """

    primal: Primal
    keys: Float[np.ndarray, "N D"]
    values: Float[np.ndarray, "N Dv"]
    valid: Bool[np.ndarray, " N"]
    allowed: Bool[np.ndarray, "M N"]
    is_causal: bool


def _certify_call(name: str, call: Call, query: int | None) -> Iterator[HeadCertificate]:
    """The certificates of one call of `attention`. Its leading axes, but for that of the heads, are examples."""
    for example, number, head in _heads_of(name, call):
        certificate = _certify_head(head, query)
        if certificate is not None:
            yield HeadCertificate(name, example, number, certificate)


def _heads_of(name: str, call: Call) -> Iterator[tuple[int, int, _Head]]:
    """Every head of every example of a call, with the numbers of both."""
    primals = [replace(primal, bias=False) for primal in call.primals()]
    expect_agreement(primals, call.q.shape[-1])
    visibility = _visibility_of(name, call)
    lead = torch.broadcast_shapes(call.q.shape[:-2], call.k.shape[:-2], call.v.shape[:-2])
    M, N = call.q.shape[-2], call.k.shape[-2]

    def by_head(x: torch.Tensor, *shape: int) -> np.ndarray:
        return x.expand(*lead, *shape).reshape(-1, len(primals), *shape).cpu().numpy()

    k, v = (by_head(x.cpu().double(), *x.shape[-2:]) for x in (call.k, call.v))
    valid = by_head(torch.ones(N, dtype=torch.bool) if visibility.valid is None else visibility.valid, N)
    allowed = None if visibility.allowed is None else by_head(visibility.allowed, M, N)
    for at in np.ndindex(k.shape[:2]):
        example, number = at
        table = np.ones((M, N), bool) if allowed is None else allowed[at]
        yield example, number, _Head(primals[number], k[at], v[at], valid[at], table, visibility.causal)


def _visibility_of(name: str, call: Call) -> Visibility:
    """What the masks of a call hide, apart from the supports of its primals. ValueError for a mask with weights."""
    visibility = combine_masks(Everything(), call.is_causal, call.over_heads(call.key_mask), call.attn_mask)
    if visibility.log_weight is not None and visibility.log_weight.any():
        raise ValueError(f"certify_module: {name}: expected masks that hide keys; got one with finite weights")
    return visibility


def _certify_head(head: _Head, query: int | None) -> Certificate | None:
    """The certificate of one head, whose masks become part of its primal's support; None if no query sees a key."""
    support = _support_without_table(head)
    if support is not None:
        which = None if query is None or isinstance(support, Everything) else _position(query, len(head.keys))
        return _certify(replace(head.primal, support=support), head.keys, head.values, which)
    return _certify_with_table(head, query)


def _support_without_table(head: _Head) -> Support | None:
    """The support that says all, if nothing is masked; None where it takes a table of who sees whom.

    `certify` takes as many queries as keys, which matters only where each query has a training set of its own.
    """
    support = head.primal.support
    square = head.allowed.shape[0] == head.allowed.shape[1]
    if not (head.valid.all() and head.allowed.all()):
        return None
    if _is_causal(head):
        return Causal() if square and isinstance(support, Everything | Causal) else None
    return support if square or isinstance(support, Everything) else None


def _certify_with_table(head: _Head, query: int | None) -> Certificate | None:
    """The certificate under a table of which query sees which key, with one row for each set of keys that is seen."""
    keys, transforms = _convolve(head)
    visible = _table(head)
    square = visible.shape[0] == visible.shape[1]
    is_query = visible.any(axis=1) & head.valid if square else visible.any(axis=1)  # padding asks nothing
    queries = np.flatnonzero(is_query)
    if not len(queries):
        return None
    count = np.flatnonzero(head.valid)[-1] + 1  # padding at the end is nobody's key
    table = visible[queries, :count]
    primal = replace(head.primal, transform=transforms, support=Everything())
    if table.all():
        return _certify(primal, keys[:count], head.values[:count], None)
    if query is not None:
        which = [_position(query, len(queries))]
        queries, table = queries[which], table[which]
    rows, first = np.unique(table, axis=0, return_index=True)  # the same keys make the same SVR
    certificate = _certify(replace(primal, support=Mask(rows)), keys[:count], head.values[:count], None)
    assert certificate.query is not None  # a mask gives each query an SVR of its own
    return replace(certificate, query=int(queries[first[certificate.query]]))


def _position(query: int, count: int) -> int:
    """The position of a query that may be counted from the end. ValueError for one that is not there."""
    if not isinstance(query, numbers.Integral) or not -count <= query < count:
        raise ValueError(f"query: expected a whole number, {-count} to {count - 1}; got {query!r}")
    return int(query) % count


def _certify(
    primal: Primal, keys: Float[np.ndarray, "N D"], values: Float[np.ndarray, "N Dv"], query: int | None
) -> Certificate:
    certificate = certify(primal, keys, values, query=query)
    assert isinstance(certificate, Certificate)  # only Heads have a tuple of them
    return certificate


def _table(head: _Head) -> Bool[np.ndarray, "M N"]:
    """True where a query sees a key, under the primal's support and the masks of the call."""
    M, N = head.allowed.shape
    visible = visibility_table(head.primal.support, np.arange(M), N) & head.allowed & head.valid
    return np.tril(visible) if _is_causal(head) else visible


def _convolve(head: _Head) -> tuple[Float[np.ndarray, "N D"], Any]:
    """The keys after the convolutions of the primal, and its other transforms."""
    convolutions, others = split_convolutions(head.primal.transform)
    if not convolutions:
        return head.keys, head.primal.transform
    support = Causal() if _is_causal(head) else Everything()
    return convolve_sequence(replace(head.primal, support=support), head.keys, head.valid), others


def _is_causal(head: _Head) -> bool:
    return head.is_causal or isinstance(head.primal.support, Causal)
