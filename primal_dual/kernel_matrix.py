"""The kernel matrix of queries and keys, without overflow, and the normaliser h that is its row sum."""

import autograd.numpy as np
import numpy

from primal_dual.arrays import constant, writes_refused
from primal_dual.primal import Primal
from primal_dual.protocols import Kernel, PositiveKernel
from primal_dual.types import Array, Bool, Float

NEAR_ZERO = 1e-12  # |h| beside the sum of the absolute terms of which it is made


def kernel_values(kernel: Kernel, x: Float[Array, "... M D"], y: Float[Array, "... N D"]) -> Float[Array, "... M N"]:
    """<Phi(x_i), Phi(y_j)> in row i and column j, or its logarithm for a positive kernel.

    Raises
    ------
    ValueError
        For a kernel that gives another shape, complex numbers, or none, and for one that writes into x or y.
    """
    shape = (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-2])
    with writes_refused(kernel, x, y) as (x, y):
        a = kernel.log_gram(x, y) if isinstance(kernel, PositiveKernel) else kernel.gram(x, y)
    value = constant(a)
    if not isinstance(value, numpy.ndarray) or value.shape != shape or value.dtype.kind not in "biuf":
        got = f"{value.dtype} {value.shape}" if hasattr(value, "dtype") else repr(value)
        raise ValueError(f"{kernel}: expected a kernel matrix {shape} of real numbers; got {got}")
    return a


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
    a = kernel_values(primal.kernel, x, keys)
    if not isinstance(primal.kernel, PositiveKernel):
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
        mend = "scale them down, or write `gram` for a kernel that can be zero or negative"
        raise ValueError(f"{primal.kernel} of these queries and keys is NaN or too large for a float; {mend}")
    if primal.normalizer == "one":
        return np.ones(h.shape)
    if isinstance(primal.kernel, PositiveKernel):
        return h  # 1 at least, the largest w of a row
    size = abs(constant(w)).sum(axis=-1, keepdims=True)
    if (abs(constant(h)) <= NEAR_ZERO * size).any():
        why = "cancel" if (size > 0).all() else "are all zero"
        raise ValueError(f"h(x) = sum_j <Phi(x), Phi(k_j)> is near zero: the terms of {primal.kernel} {why}")
    return h
