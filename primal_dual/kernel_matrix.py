"""The kernel matrix of queries and keys, without overflow, and the normaliser h that is its row sum."""

import autograd.numpy as np

from primal_dual.arrays import constant
from primal_dual.primal import Primal
from primal_dual.protocols import PositiveKernel
from primal_dual.types import Array, Bool, Float

NEAR_ZERO = 1e-12  # |h| beside the sum of the absolute terms of which it is made


def kernel_rows(
    primal: Primal, x: Float[Array, "... M D"], keys: Float[Array, "... n D"], visible: Bool[Array, "..."]
) -> tuple[Float[Array, "... M n"], Float[Array, "... M 1"]]:
    """<Phi(x_i), Phi(k_j)> = w_ij exp(top_i), zero where key j is not visible to query i.

    x and the keys are transformed already. Where h divides it out again, `top` keeps w from overflow: the largest w of
    a row is 1.

    Returns
    -------
    tuple
        w and top.
    """
    kernel = primal.kernel
    a = kernel.log_gram(x, keys) if isinstance(kernel, PositiveKernel) else kernel.gram(x, keys)
    expected = (*np.broadcast_shapes(x.shape[:-2], keys.shape[:-2]), x.shape[-2], keys.shape[-2])
    if getattr(a, "shape", None) != expected:
        raise ValueError(f"{kernel}: expected a kernel matrix {expected}; got {getattr(a, 'shape', a)}")
    if not isinstance(kernel, PositiveKernel):
        w = a * visible
        return w, np.zeros((*w.shape[:-1], 1))
    if not visible.all():
        a = a + np.where(visible, 0.0, -np.inf)
    top = constant(a).max(axis=-1, keepdims=True)
    if primal.normalizer == "one":
        top = np.zeros_like(top)
    return np.exp(a - top), top


def normalizer(primal: Primal, w: Float[Array, "... M n"]) -> Float[Array, "... M 1"]:
    """h(x_i) exp(-top_i) from the rows w of `kernel_rows`: their sum, or 1.

    Raises
    ------
    ValueError
        Where the rows are not finite, and where the terms of h cancel, so that h is near zero.
    """
    h = w.sum(axis=-1, keepdims=True)
    if not np.isfinite(constant(h)).all():
        raise ValueError(f"{primal.kernel} of these queries and keys is NaN or too large for a float; scale them down")
    if primal.normalizer == "one":
        return np.ones(h.shape)
    positive = isinstance(primal.kernel, PositiveKernel)
    size = abs(constant(h)) if positive else abs(constant(w)).sum(axis=-1, keepdims=True)
    if (abs(constant(h)) <= NEAR_ZERO * size).any():
        raise ValueError(f"h(x) = sum_j <Phi(x), Phi(k_j)> is near zero: the terms of {primal.kernel} cancel")
    return h
