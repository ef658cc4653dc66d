"""Kernels: the torch versions of those in primal_dual. Most formulas serve tensors as they are."""

import torch

from primal_dual.kernels import EluPlusOne, Exponential, Gaussian, Polynomial, RandomFeatures, Taylor
from primal_dual.types import Float
from torch_impl.registry import register

register(Exponential)(Exponential.log_gram)
register(Gaussian)(Gaussian.log_gram)
register(Taylor)(Taylor.gram)
register(Polynomial)(Polynomial.gram)


@register(EluPlusOne)
@register(RandomFeatures)
def log_gram(
    kernel: EluPlusOne | RandomFeatures, x: Float[torch.Tensor, "... M D"], y: Float[torch.Tensor, "... N D"]
) -> Float[torch.Tensor, "... M N"]:
    """log <Phi(x_i), Phi(y_j)> = log sum_f Phi_f(x_i) Phi_f(y_j), for kernels whose features are positive.

    The sum is scaled twice, and the scales cancel: each feature f is divided by top_y_f, its largest value over the
    keys, and each query's products Phi_f(x_i) top_y_f by the largest of them. Then the largest entry of a row is 1 or
    more, so that an entry which underflows beside it is negligible.

    Examples
    --------
    >>> x = torch.tensor([[0.0, 1.0]])
    >>> log_gram(EluPlusOne(), x, x).exp().round(decimals=4).tolist()
    [[5.0]]
    """
    log_x, log_y = kernel.log_features(x), kernel.log_features(y)
    top_y = log_y.detach().amax(-2, keepdim=True)
    log_x = log_x + top_y
    top_x = log_x.detach().amax(-1, keepdim=True)
    gram = (log_x - top_x).exp() @ (log_y - top_y).exp().mT
    return gram.clamp_min(torch.finfo(gram.dtype).tiny).log() + top_x
