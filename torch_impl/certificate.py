"""Certify the heads of a trained module: which SVRs its keys and values solve, and how exactly."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from primal_dual.primal import Heads
from primal_dual.sequence import convolve_sequence
from primal_dual.supports import Causal, Everything, Mask, visibility_table
from primal_dual.svr.certificate import Certificate, certify
from primal_dual.transforms import BatchNorm, Convolution, split_convolutions
from torch_impl.fast.visibility import combine_masks
from torch_impl.recorder import recording


class HeadCertificate(NamedTuple):
    """The certificate of one head: `module`, the name of the module that it is in; which example of the batch.

    Beside padding, a convolution is no longer part of the certificate's primal: its error_bound takes convolved x.
    """

    module: str
    example: int
    head: int
    certificate: Certificate


class ModuleCertificates(tuple):
    """A HeadCertificate for each head, module and example; printed as a one-line summary."""

    def __str__(self):
        worst = max(self, key=lambda each: each.certificate.relative_gap)
        modules = len({each.module for each in self})
        return (
            f"{len(self)} SVRs of {modules} attention module{'s' * (modules > 1)}: worst relative gap "
            f"{worst.certificate.relative_gap:.1e}, at {worst.module}, example {worst.example}, head {worst.head}"
        )


def certify_module(module, x):
    """Run `module` on x once and certify every head of every attention in it, in float64 -> ModuleCertificates.

    module: any nn.Module whose attention is torch_impl's, such as a model after replace_attention. x: its argument, a
    tuple or list of them, or a mapping of named ones. Each head's keys and values are the optimum of an SVR without a
    bias, whose certificate has its targets, gap and error bound. The module runs in eval mode without gradients.

    Raises ValueError where no attention of torch_impl ran, and for a mask with finite weights, which has no primal.
    """
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"certify_module: expected an nn.Module; got {module!r}")
    with recording(module) as calls, torch.no_grad():
        modes = {each: each.training for each in module.modules()}
        module.eval()
        try:
            module(**x) if isinstance(x, Mapping) else module(*x) if isinstance(x, tuple | list) else module(x)
        finally:
            for each, mode in modes.items():
                each.training = mode
    if not calls:
        raise ValueError(
            f"certify_module: expected a module with torch_impl's attention inside; got {type(module).__name__}"
        )
    return ModuleCertificates(each for name, call in calls for each in _certificates(name, call))


def _certificates(name, call):
    """Of one call. Its leading axes, but that of the heads, are examples."""
    several = isinstance(call.primal, Heads)
    members = tuple(call.primal) if several else (call.primal,)
    key_mask = call.key_mask[..., None, :] if several and call.key_mask is not None else call.key_mask
    lead = torch.broadcast_shapes(call.q.shape[:-2], call.k.shape[:-2], call.v.shape[:-2])
    M, N, H = call.q.shape[-2], call.k.shape[-2], len(members)

    def by_head(x, *shape):
        return x.expand(*lead, *shape).reshape(-1, H, *shape).cpu().numpy()

    context = combine_masks(Everything(), call.is_causal, key_mask, call.attn_mask)
    if context.log_weight is not None and context.log_weight.any():
        raise ValueError(f"certify_module: {name}: expected masks that hide keys; got one with finite weights")
    k, v = (by_head(x.double(), *x.shape[-2:]) for x in (call.k, call.v))
    valid = by_head(torch.ones(N, dtype=torch.bool) if context.valid is None else context.valid, N)
    allowed = None if context.allowed is None else by_head(context.allowed, M, N)
    for example, head in np.ndindex(k.shape[:2]):
        beta = call.beta if call.beta is None or call.beta.ndim == 0 else call.beta[head]
        primal = _with_parameters(members[head], beta, call.taps)
        seen_by = np.ones((M, N), bool) if allowed is None else allowed[example, head]
        keys, values, only = k[example, head], v[example, head], valid[example, head]
        certificate = _certificate(primal, keys, values, only, seen_by, context.causal)
        if certificate is not None:
            yield HeadCertificate(name, example, head, certificate)


def _certificate(primal, keys, values, valid, allowed, is_causal):
    """Of one head, whose call-time masks become part of its primal's support; None where no query sees a key."""
    is_causal = is_causal or isinstance(primal.support, Causal)
    everything, square = isinstance(primal.support, Everything), allowed.shape[0] == allowed.shape[1]
    if valid.all() and allowed.all() and not is_causal and (everything or square):
        return certify(primal, keys, values)
    if valid.all() and allowed.all() and square and isinstance(primal.support, Everything | Causal):
        return certify(replace(primal, support=Causal()), keys, values)
    convolutions, transforms = split_convolutions(primal.transform)
    if convolutions:
        keys = convolve_sequence(replace(primal, support=Causal() if is_causal else Everything()), keys, valid)
        primal = replace(primal, transform=transforms)
    table = visibility_table(primal.support, np.arange(len(allowed)), len(keys)) & allowed & valid
    table = np.tril(table) if is_causal else table
    queries = np.flatnonzero(table.any(axis=1) & (valid if square else True))
    if not len(queries):
        return None
    count = np.flatnonzero(valid)[-1] + 1  # padding at the end is nobody's key
    rows, first = np.unique(table[queries, :count], axis=0, return_index=True)  # the same keys make the same SVR
    if rows.all():
        return certify(replace(primal, support=Everything()), keys[:count], values[:count])
    certificate = certify(replace(primal, support=Mask(rows)), keys[:count], values[:count])
    return replace(certificate, query=int(queries[first[certificate.query]]))


def _with_parameters(primal, beta, taps):
    """The primal with the numbers that were learned."""
    learned = []
    for part in primal.transform if isinstance(primal.transform, tuple) else (primal.transform,):
        if isinstance(part, BatchNorm) and beta is not None:
            part = replace(part, beta=beta.item())
        if isinstance(part, Convolution) and taps is not None:
            part = replace(part, kernel=taps.tolist())
        learned.append(part)
    return replace(primal, transform=tuple(learned), bias=False)
