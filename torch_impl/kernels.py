"""Kernels: the torch versions of those in primal_dual. Most formulas serve tensors as they are."""

import torch

from primal_dual.kernels import EluPlusOne, Exponential, Gaussian, Polynomial, RandomFeatures, Taylor
from primal_dual.protocols import Kernel
from primal_dual.types import Float
from torch_impl.registry import register, torch_version

register(Exponential)(Exponential.log_gram)
register(Gaussian)(Gaussian.log_gram)
register(Taylor)(Taylor.gram)
register(Polynomial)(Polynomial.gram)


@register(EluPlusOne)
@register(RandomFeatures)
def log_gram(
    kernel: EluPlusOne | RandomFeatures, x: Float[torch.Tensor, "... M D"], y: Float[torch.Tensor, "... N D"]
) -> Float[torch.Tensor, "... M N"]:
    """log <Phi(x_i), Phi(y_j)>, for kernels whose features are positive.

    Examples
    --------
    >>> x = torch.tensor([[0.0, 1.0]])
    >>> log_gram(EluPlusOne(), x, x).exp().round(decimals=4).tolist()
    [[5.0]]
    """
    return log_inner_products(kernel.log_features(x), kernel.log_features(y))


def takes_tensors(kernel: Kernel) -> bool:
    """Whether the kernel's own methods, such as `log_features`, are formulas that serve tensors.

    Examples
    --------
    >>> takes_tensors(EluPlusOne())
    True
    """
    return torch_version(kernel) in (log_gram, getattr(type(kernel), "log_gram", None))


def log_inner_products(
    log_x: Float[torch.Tensor, "... M F"], log_y: Float[torch.Tensor, "... N F"]
) -> Float[torch.Tensor, "... M N"]:
    """log sum_f exp(log_x_if) exp(log_y_jf), scaled so that it neither overflows nor underflows, in two ways.

    First each feature of y is divided by its largest value over all j, and each row's products by the largest of them,
    so that the largest entry of a row is 1 or more. An entry that underflows is then negligible beside it; but if x are
    queries and y keys, the query may not see the key of that largest entry. So each row of x and of y is also divided
    by its own largest feature. An entry that underflows counts as the least number, which is too large; so the smaller
    of the two results is taken. Only where both underflow, by a factor of e^71 in float32 or e^672 in float64, is an
    entry too large; and it has no gradient.

    Examples
    --------
    >>> x, y = torch.zeros(1, 2), torch.tensor([[-1000.0, -1000.0], [0.0, 0.0]])
    >>> log_inner_products(x, y).exp().tolist(), log_inner_products(x, y).round().tolist()
    ([[0.0, 2.0]], [[-999.0, 1.0]])
    """
    top_features, top_y = log_y.detach().amax(-2, keepdim=True), log_y.detach().amax(-1, keepdim=True)
    by_features = _log_of_sum(log_x + top_features, log_y - top_features)
    return torch.minimum(by_features, _log_of_sum(log_x, log_y - top_y) + top_y.mT)


def _log_of_sum(
    log_x: Float[torch.Tensor, "... M F"], log_y: Float[torch.Tensor, "... N F"]
) -> Float[torch.Tensor, "... M N"]:
    """The same for log_y of at most 0; too large where the sum underflows."""
    top_x = log_x.detach().amax(-1, keepdim=True)
    gram = (log_x - top_x).exp() @ log_y.exp().mT
    number = torch.finfo(gram.dtype)
    return gram.clamp_min(number.tiny / number.eps).log() + top_x
