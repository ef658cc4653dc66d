"""Kernels: the torch twins of primal_dual's, and the feature maps that make attention linear in N."""

import torch

from primal_dual.kernels import EluPlusOne, Exponential, Gaussian, Polynomial, RandomFeatures, Taylor
from torch_impl.registry import register

register(Exponential)(Exponential.log_gram)
register(Gaussian)(Gaussian.log_gram)
register(Taylor)(Taylor.gram)
register(Polynomial)(Polynomial.gram)


@register(EluPlusOne)
@register(RandomFeatures)
def log_gram(kernel, x, y):
    """log <Phi(x), Phi(y)> of features that are positive: (..., M, D), (..., N, D) -> (..., M, N).

    Each feature is divided by its largest over the keys, then each query's by its own: a row's largest entry is 1 or
    more, and what underflows beside it is nothing.
    """
    log_x, log_y = kernel.log_features(x), kernel.log_features(y)
    top_y = log_y.detach().amax(-2, keepdim=True)
    log_x = log_x + top_y
    top_x = log_x.detach().amax(-1, keepdim=True)
    gram = (log_x - top_x).exp() @ (log_y - top_y).exp().mT
    return gram.clamp_min(torch.finfo(gram.dtype).tiny).log() + top_x
