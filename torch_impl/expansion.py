"""Attention: the support vector expansion of a primal's SVR, the torch version of primal_dual.attention."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import NamedTuple

import torch

from primal_dual.checks import head_axis, no_head_axis, sizes
from primal_dual.primal import Heads, Primal, members_of
from primal_dual.protocols import Transform
from primal_dual.supports import Everything, check_size
from primal_dual.transforms import BatchNorm, Identity, split_convolutions
from primal_dual.types import Bool, Float
from torch_impl import checks
from torch_impl.fast.dispatch import expansion, weights
from torch_impl.fast.problem import Problem
from torch_impl.fast.visibility import combine_masks
from torch_impl.recorder import Call, record
from torch_impl.transforms import TensorBatchNorm, TorchTransform, convolve


def attention(
    primal: Primal | Heads,
    q: Float[torch.Tensor, "... M D"],
    k: Float[torch.Tensor, "... N D"],
    v: Float[torch.Tensor, "... N Dv"],
    key_mask: Bool[torch.Tensor, "... N"] | None = None,
    *,
    query_mask: Bool[torch.Tensor, "... M"] | None = None,
    attn_mask: Bool[torch.Tensor, "... #M N"] | Float[torch.Tensor, "... #M N"] | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    beta: Float[torch.Tensor, "..."] | None = None,
    taps: Float[torch.Tensor, "..."] | None = None,
) -> Float[torch.Tensor, "... M Dv"]:
    """Attention of queries to keys and values: f(q_i) = sum_j v_j <Phi(T q_i), Phi(T k_j)> / h(q_i).

    This is the support vector expansion of the primal's SVR, without its bias b. The masks of the call and the support
    of the primal intersect, and the statistics and pools of a query are those of the keys that it then sees. A query
    that sees no key gets zero. Values are not checked: where h is zero or overflows, f means nothing.
    Source: arXiv 2406.13781; see tutorial 2, and tutorial 8 for its use on a GPU.

    Parameters
    ----------
    primal : Primal or Heads
        For Heads, q, k and v have a head axis before their last two; key_mask and query_mask have none.
    q, k, v : tensors
        Queries, keys and values. Their leading axes broadcast.
    key_mask : tensor of booleans, optional
        True for a valid key, False for padding.
    query_mask : tensor of booleans, optional
        True for a valid query. One that is not valid counts as zero to its neighbours under a Convolution, and its
        output is of no use.
    attn_mask : tensor, optional
        Booleans, True where a query may attend to a key; or floats, of which -inf hides a key and others are added to
        its logit, averaged over a pool. A mask of one row is a key mask.
    is_causal : bool
        Whether query i sees the keys 0..i alone. A Convolution looks back only where this or the primal's support says
        so, whatever the table of attn_mask.
    dropout_p : float
        The probability that a weight is dropped, in [0, 1).
    beta : tensor, optional
        Used in place of BatchNorm's beta: one number, or (H,) for Heads.
    taps : tensor, optional
        Used in place of the Convolution's kernel, in its shape.

    Returns
    -------
    tensor
        f, one row a query.

    Raises
    ------
    ValueError
        For shapes, dtypes and devices that do not fit, and for a part without a torch version.

    Examples
    --------
    >>> k, v = torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [2.0]])
    >>> attention(Primal(), torch.tensor([[1.0]]), k, v).tolist()
    [[1.5]]
    """
    call = Call(primal, q, k, v, key_mask, query_mask, attn_mask, is_causal, beta, taps)
    _check(call)
    _check_dropout(dropout_p)
    record(call)
    return _attend(call, Way(dropout_p=dropout_p))


def attention_unchecked(
    primal: Primal | Heads,
    q: Float[torch.Tensor, "... M D"],
    k: Float[torch.Tensor, "... N D"],
    v: Float[torch.Tensor, "... N Dv"],
    key_mask: Bool[torch.Tensor, "... N"] | None,
    *,
    query_mask: Bool[torch.Tensor, "... M"] | None = None,
    beta: Float[torch.Tensor, " H"] | None = None,
) -> Float[torch.Tensor, "... M Dv"]:
    """attention(...) without its checks, for k and v that are zero where key_mask is False."""
    call = Call(primal, q, k, v, key_mask, query_mask, beta=beta)
    record(call)
    return _attend(call, Way(hidden_are_zero=True))


def attention_weights(
    primal: Primal | Heads,
    q: Float[torch.Tensor, "... M D"],
    k: Float[torch.Tensor, "... N D"],
    key_mask: Bool[torch.Tensor, "... N"] | None = None,
    *,
    query_mask: Bool[torch.Tensor, "... M"] | None = None,
    attn_mask: Bool[torch.Tensor, "... #M N"] | Float[torch.Tensor, "... #M N"] | None = None,
    is_causal: bool = False,
    beta: Float[torch.Tensor, "..."] | None = None,
    taps: Float[torch.Tensor, "..."] | None = None,
) -> Float[torch.Tensor, "... M N"]:
    """The matrix A with A @ v = attention(primal, q, k, v).

    A pool's weight is spread evenly over its keys. Parameters and errors are those of `attention`.

    Examples
    --------
    >>> attention_weights(Primal(), torch.tensor([[1.0]]), torch.tensor([[0.0], [0.0]])).tolist()
    [[0.5, 0.5]]
    """
    call = Call(primal, q, k, k, key_mask, query_mask, attn_mask, is_causal, beta, taps)
    _check(call)
    return _attend(call, Way(weights))


def attention_with_weights(
    primal: Primal | Heads,
    q: Float[torch.Tensor, "... M D"],
    k: Float[torch.Tensor, "... N D"],
    v: Float[torch.Tensor, "... N Dv"],
    key_mask: Bool[torch.Tensor, "... N"] | None = None,
    *,
    query_mask: Bool[torch.Tensor, "... M"] | None = None,
    attn_mask: Bool[torch.Tensor, "... #M N"] | Float[torch.Tensor, "... #M N"] | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    beta: Float[torch.Tensor, "..."] | None = None,
    taps: Float[torch.Tensor, "..."] | None = None,
) -> tuple[Float[torch.Tensor, "... M Dv"], Float[torch.Tensor, "... M N"]]:
    """f and A with f = A @ v: attention and its weights, those that are left by dropout.

    Parameters and errors are those of `attention`. It takes time and memory for the M N weights.

    Examples
    --------
    >>> k, v = torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [2.0]])
    >>> [x.tolist() for x in attention_with_weights(Primal(), torch.tensor([[1.0]]), k, v)]
    [[[1.5]], [[0.5, 0.5]]]
    """
    call = Call(primal, q, k, v, key_mask, query_mask, attn_mask, is_causal, beta, taps)
    _check(call)
    _check_dropout(dropout_p)
    record(call)
    A = _attend(call, Way(weights, dropout_p))
    row = attn_mask if attn_mask is not None and attn_mask.shape[-2] == 1 else None  # a mask of keys
    valid = combine_masks(Everything(), False, call.over_heads(key_mask), row).valid
    v = v if valid is None else v.masked_fill(~valid[..., None], 0)
    return A @ v.to(A.dtype), A


class Way(NamedTuple):
    """How a call is evaluated: for its attention or its weights, and with what dropout.

    `hidden_are_zero` says that keys and values which key_mask hides are zero already.
    """

    evaluate: Callable[[Problem], torch.Tensor] = expansion
    dropout_p: float = 0.0
    hidden_are_zero: bool = False


def _attend(call: Call, way: Way) -> torch.Tensor:
    if isinstance(call.primal, Heads):
        return _with_heads(call, call.primal, way)
    return _with_one_primal(call, call.primal, way)


def _with_heads(call: Call, heads: Heads, way: Way) -> torch.Tensor:
    """Heads of the same primal are evaluated together, as a batch axis."""
    call = call._replace(
        key_mask=call.over_heads(call.key_mask),
        query_mask=call.over_heads(call.query_mask),
        beta=call.beta if call.beta is None or call.beta.ndim == 0 else call.beta[:, None, None],
    )
    if len(heads.groups) == 1:
        return _with_one_primal(call, heads.primals[0], way)
    order = [s for _, numbers in heads.groups for s in numbers]
    each = [_with_one_primal(part, primal, way) for primal, part in _split_by_primal(call, heads, order)]
    return _take_heads(torch.cat(each, -3), [order.index(s) for s in range(len(order))])


def _split_by_primal(call: Call, heads: Heads, order: list[int]) -> list[tuple[Primal, Call]]:
    """The calls for the heads of one primal each; `order` lists the heads group by group."""
    sizes = [len(numbers) for _, numbers in heads.groups]

    def split(x):
        """The heads of each group. A tensor that has no axis of heads, or one of length one, goes to every group."""
        if x is None or x.ndim < 3 or x.shape[-3] != len(heads):
            return [x] * len(sizes)
        return _take_heads(x, order).split(sizes, -3)

    q, k, v, attn_mask, beta = split(call.q), split(call.k), split(call.v), split(call.attn_mask), split(call.beta)
    return [
        (primal, call._replace(q=q[g], k=k[g], v=v[g], attn_mask=attn_mask[g], beta=beta[g]))
        for g, (primal, _) in enumerate(heads.groups)
    ]


def _take_heads(x: Float[torch.Tensor, "... H A B"] | Bool[torch.Tensor, "... H A B"], order: list[int]):
    """The heads of x in another order."""
    return x if order == sorted(order) else x.index_select(-3, torch.tensor(order, device=x.device))


def _with_one_primal(call: Call, primal: Primal, way: Way) -> torch.Tensor:
    """Attention of one primal, without autocast: convolve the sequences, then evaluate the expansion."""
    convolutions, transforms = split_convolutions(primal.transform)
    visibility = combine_masks(primal.support, call.is_causal, call.key_mask, call.attn_mask)
    q, k, v = call.q, call.k, call.v
    device = q.device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    if autocast:
        v = v.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False) if autocast else nullcontext():
        if visibility.valid is not None and not way.hidden_are_zero:
            hidden = ~visibility.valid[..., None]
            k, v = k.masked_fill(hidden, 0), v.masked_fill(hidden, 0)
        for part in convolutions:
            q = convolve(part, q, call.query_mask, visibility.causal, call.taps)
            k = convolve(part, k, visibility.valid, visibility.causal, call.taps)
        parts = _with_beta(transforms, call.beta)
        scale, dropout_p = primal.scale, way.dropout_p
        return way.evaluate(Problem(primal.kernel, primal.normalizer, scale, parts, q, k, v, visibility, dropout_p))


def _with_beta(transforms: Iterable[Transform], beta: torch.Tensor | None) -> tuple[TorchTransform, ...]:
    """The transforms that do something, with `beta` in the place of BatchNorm's own, if it is given."""
    return tuple(
        TensorBatchNorm(beta, part.eps) if isinstance(part, BatchNorm) and beta is not None else part
        for part in transforms
        if not isinstance(part, Identity)
    )


def _check(call: Call) -> None:
    """Raise ValueError for arguments that do not fit together."""
    _check_tensors(call.q, call.k, call.v)
    _check_primal(call)
    _check_masks(call)
    primals = members_of(call.primal)
    for primal in primals:
        check_size(primal.support, call.q.shape[-2], call.k.shape[-2])
    _check_parameters(call, primals)


def _check_dropout(p: float) -> None:
    if not 0 <= p < 1:
        raise ValueError(f"dropout_p: expected a number in [0, 1); got {p}")


def _check_tensors(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    checks.tensor("q", q, "M D")
    checks.tensor("k", k, "N D")
    checks.tensor("v", v, "N Dv")
    checks.alike(q=q, k=k, v=v)
    sizes(q.shape, k.shape, v.shape)


def _check_primal(call: Call) -> None:
    primal = call.primal
    if isinstance(primal, Heads):
        head_axis(len(primal), q=call.q.shape, k=call.k.shape, v=call.v.shape)
    elif not hasattr(primal, "kernel") or isinstance(primal, type):
        raise ValueError(f"primal: expected a Primal or Heads, such as catalog['bn']; got {primal!r}")


def _check_masks(call: Call) -> None:
    q, k, v, attn_mask = call.q, call.k, call.v, call.attn_mask
    checks.mask("key_mask", call.key_mask, k.shape[-2], q.device)
    checks.mask("query_mask", call.query_mask, q.shape[-2], q.device)
    checks.attention_mask(attn_mask, q.shape[-2], k.shape[-2], q.device)
    lead = checks.broadcast(q=q.shape[:-2], k=k.shape[:-2], v=v.shape[:-2])
    without_heads = lead[:-1] if isinstance(call.primal, Heads) else lead
    masks = {"key_mask": call.key_mask, "query_mask": call.query_mask}
    shapes = {name: tuple(mask.shape) for name, mask in masks.items() if mask is not None}
    if isinstance(call.primal, Heads):
        for name, shape in shapes.items():
            no_head_axis(name, shape, len(lead), len(call.primal))
    checks.broadcast(lead=without_heads, **{name: shape[:-1] for name, shape in shapes.items()})
    if attn_mask is not None:
        checks.broadcast(lead=lead, attn_mask=attn_mask.shape[:-2])


def _check_parameters(call: Call, primals: tuple[Primal, ...]) -> None:
    """beta needs a BatchNorm in some head, and taps a Convolution."""
    if call.beta is not None:
        transforms = [part for primal in primals for part in split_convolutions(primal.transform)[1]]
        has_norm = any(isinstance(part, BatchNorm) for part in transforms)
        shapes: list[tuple[int, ...]] = [(), (len(primals),)] if isinstance(call.primal, Heads) else [()]
        checks.parameter("beta", call.beta, shapes if has_norm else [])
    if call.taps is not None:
        convolutions = [part for primal in primals for part in split_convolutions(primal.transform)[0]]
        distinct = dict.fromkeys(part.kernel for part in convolutions)
        checks.parameter("taps", call.taps, [_shape(kernel) for kernel in distinct])


def _shape(kernel: tuple) -> tuple[int, ...]:
    return (len(kernel), len(kernel[0])) if isinstance(kernel[0], tuple) else (len(kernel),)
