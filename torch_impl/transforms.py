"""Transforms: the torch versions of those in primal_dual. T in f(x) = W Phi(T x) / h(x) + b."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from primal_dual.primal import Heads
from primal_dual.protocols import Transform
from primal_dual.transforms import BatchNorm, Convolution, Identity, UnitNorm, checked, split_convolutions
from primal_dual.types import Bool, Float
from torch_impl.blocks import join_blocks, split_into_blocks
from torch_impl.key_statistics import precise, shared
from torch_impl.registry import register, torch_version

Fitted = Callable[[Float[torch.Tensor, "... M D"]], Float[torch.Tensor, "... M D"]]

register(Identity)(Identity.fit)
register(UnitNorm)(UnitNorm.fit)


class TensorBatchNorm(NamedTuple):
    """A BatchNorm whose beta is a tensor, so that it can be learned; beta broadcasts against (..., tokens, D)."""

    beta: torch.Tensor
    eps: float


TorchTransform = Transform | TensorBatchNorm


def learned_beta(primals: Heads, weight: torch.Tensor) -> nn.Parameter | None:
    """A beta for each head, (H,), that starts at its own, in the dtype of a weight; None if no head has a BatchNorm.

    Raises
    ------
    ValueError
        If some heads have one and others none, or several.

    Examples
    --------
    >>> from primal_dual import Primal
    >>> learned_beta(Heads(Primal(transform=BatchNorm(0.5)), Primal(transform=BatchNorm())), torch.ones(1)).tolist()
    [0.5, 1.0]
    """
    transforms = [split_convolutions(primal.transform)[1] for primal in primals]
    betas = [[part.beta for part in parts if isinstance(part, BatchNorm)] for parts in transforms]
    counts = list(map(len, betas))
    if not any(counts):
        return None
    if set(counts) != {1}:
        raise ValueError(f"learn_beta: expected one BatchNorm in each head; got {counts} in the heads")
    return nn.Parameter(torch.tensor(betas, dtype=torch.float64).flatten().to(weight))


@register(BatchNorm)
@register(TensorBatchNorm)
def batch_norm(
    transform: BatchNorm | TensorBatchNorm,
    keys: Float[torch.Tensor, "... N D"],
    valid: Bool[torch.Tensor, "... N"] | None,
) -> Fitted:
    """The function x -> (x - beta mu) s, with s = 1 / sqrt(sigma^2 + eps), for the statistics of the keys.

    For softmax attention `fast.softmax` has a quicker way to the same result. Source: arXiv 2406.13781; tutorial 4.

    Examples
    --------
    >>> keys = torch.tensor([[1.0], [3.0]])
    >>> batch_norm(BatchNorm(eps=1e-12), keys, None)(keys).tolist()
    [[-1.0], [1.0]]
    """
    mu, variance, _ = shared(keys, valid)
    s = (variance + transform.eps).rsqrt()
    return lambda x: (x - transform.beta * mu) * s


@register(Convolution)
def convolve(
    convolution: Convolution,
    x: Float[torch.Tensor, "... N D"],
    valid: Bool[torch.Tensor, "... N"] | None,
    causal: bool = False,
    taps: Float[torch.Tensor, "..."] | None = None,
) -> Float[torch.Tensor, "... N D"]:
    """One convolution kernel along the tokens, for each feature: (T x)_i = sum_t kernel_t x_(i+t-r), t = 0..2r.

    With `causal` it looks back only, (T x)_i = sum_t kernel_t x_(i+t-2r). On a grid it runs along rows and columns.

    Parameters
    ----------
    convolution : Convolution
        The kernel, and how many tokens wide the grid is.
    x : tensor
        A row a token.
    valid : tensor of booleans, optional
        True for a valid token. The others count as zero.
    causal : bool
        Whether the kernel looks back only.
    taps : tensor, optional
        Used in place of the kernel's numbers, in its shape.

    Examples
    --------
    >>> convolve(Convolution((1.0, 0.0, -1.0)), torch.tensor([[1.0], [2.0], [4.0]]), None).tolist()
    [[-2.0], [-3.0], [2.0]]
    """
    taps = x.new_tensor(convolution.kernel) if taps is None else taps.to(x.dtype)
    if valid is not None:
        x = x.masked_fill(~valid[..., None], 0)
    tokens, width = x.shape[-2], convolution.width or 1
    taps = taps.reshape(len(taps), -1)
    rows, columns = taps.shape
    up, left = (rows - 1, columns - 1) if causal else (rows // 2, columns // 2)
    grid = split_into_blocks(x, width)
    height = grid.shape[-3]
    grid = F.pad(grid, (0, 0, left, columns - 1 - left, up, rows - 1 - up))
    shifted = (grid[..., a : a + height, b : b + width, :] * taps[a, b] for a in range(rows) for b in range(columns))
    total: Any = sum(shifted)  # one at a time in memory
    return join_blocks(total, tokens)


def fit(
    transforms: Sequence[TorchTransform],
    keys: Float[torch.Tensor, "... N D"],
    valid: Bool[torch.Tensor, "... N"] | None,
) -> tuple[Fitted, Float[torch.Tensor, "... N D"]]:
    """Fit transforms from left to right, each on the keys that those before it give, in float32 or better.

    Returns
    -------
    tuple
        The function x -> T x, and T of the keys.

    Examples
    --------
    >>> apply, keys = fit((UnitNorm(), BatchNorm()), torch.tensor([[2.0], [-3.0]]), None)
    >>> torch.equal(apply(torch.tensor([[5.0]])), keys[:1])
    True
    """
    fitted: list[Fitted] = []
    for part in transforms:
        keys = precise(keys)
        fitted.append(checked(part, torch_version(part)(part, keys, valid)))
        keys = fitted[-1](keys)
    return lambda x: reduce(lambda x, apply: apply(x), fitted, precise(x) if fitted else x), keys


def add_token_axis(transforms: Sequence[TorchTransform]) -> tuple[TorchTransform, ...]:
    """Transforms of tensors with an axis more before their tokens: a beta of each head, (H, 1, 1), gets it, too."""
    return tuple(
        part._replace(beta=part.beta[..., None]) if isinstance(part, TensorBatchNorm) and part.beta.ndim else part
        for part in transforms
    )
