"""Random primals and problems, and a second, naive evaluation of attention, straight from its definition."""

import math

import numpy as np
import torch
from hypothesis import strategies as st

from primal_dual import (
    BatchNorm,
    Causal,
    Convolution,
    EluPlusOne,
    Everything,
    Exponential,
    Gaussian,
    Heads,
    Identity,
    Mask,
    Polynomial,
    Primal,
    RandomFeatures,
    Strided,
    Taylor,
    UnitNorm,
    Window,
)
from primal_dual.transforms import split_convolutions

KERNELS = (
    Exponential(),
    Exponential(scale=1.0),
    Taylor(2),
    Taylor(3),
    Taylor(4),
    EluPlusOne(),
    Gaussian(),
    Gaussian(2.0),
    Polynomial(2, 1.0),
    Polynomial(3, 0.5),
    RandomFeatures(20, seed=1),
)
GRID = Convolution(((0.0, 0.1, 0.2), (0.1, 0.5, 0.3), (0.2, -0.1, 0.1)), width=3)
TRANSFORMS = (
    Identity(),
    BatchNorm(eps=1e-2),
    BatchNorm(beta=0.5, eps=1e-2),
    UnitNorm(),
    Convolution((0.25, 0.5, -0.2, 0.1, 0.3)),
    GRID,
    (Convolution((0.2, 0.5, 0.3)), BatchNorm(eps=1e-2)),
    (BatchNorm(beta=0.3, eps=1e-2), UnitNorm()),
    (UnitNorm(), BatchNorm(eps=1e-2), GRID),
)
SUPPORTS = (Everything(), Window(2), Strided(2), Causal())

normalizers, scales, biases = st.sampled_from(("sum", "one")), st.sampled_from((1, 2, 3)), st.booleans()
TOKENWISE = st.sampled_from([each for each in TRANSFORMS if not split_convolutions(each)[0]])
kernels, transforms, supports = st.sampled_from(KERNELS), st.sampled_from(TRANSFORMS), st.sampled_from(SUPPORTS)
seeds = st.integers(0, 2**32 - 1)


def primals(
    kernels=kernels, normalizers=normalizers, transforms=transforms, supports=supports, scales=scales, biases=biases
):
    return st.builds(Primal, kernels, normalizers, transforms, supports, scales, biases)


def random_mask(rng, M, N):
    table = rng.random((M, N)) < 0.6
    table[np.arange(M), rng.integers(N, size=M)] = True
    return Mask(table)


def naive_attention(primal, q, k, v, valid=None):
    """One query after another, in loops: (M, D), (N, D), (N, Dv) -> (M, Dv). A query that sees no key gets zero."""
    N = len(k)
    valid = np.ones(N, bool) if valid is None else valid
    transforms = primal.transform if isinstance(primal.transform, tuple) else (primal.transform,)
    for part in transforms:
        if isinstance(part, Convolution):
            causal = isinstance(primal.support, Causal)
            q, k = naive_convolution(part, q, causal), naive_convolution(part, np.where(valid[:, None], k, 0), causal)
    out = []
    for i, x in enumerate(q):
        seen = [j for j in range(N) if valid[j] and naive_sees(primal.support, i, j)]
        if not seen:
            out.append(np.zeros(v.shape[1]))
            continue
        groups = {}
        for j in seen:
            groups.setdefault(j // primal.scale, []).append(j)
        keys = np.array([np.mean([k[j] for j in group], axis=0) for group in groups.values()])
        values = np.array([np.mean([v[j] for j in group], axis=0) for group in groups.values()])
        for part in transforms:
            if isinstance(part, BatchNorm):
                mu, variance = keys.mean(0), keys.var(0)
                x, keys = ((z - part.beta * mu) / np.sqrt(variance + part.eps) for z in (x, keys))
            if isinstance(part, UnitNorm):
                x, keys = x / np.linalg.norm(x), np.array([key / np.linalg.norm(key) for key in keys])
        weights = np.array([naive_kernel(primal.kernel, x, key) for key in keys])
        out.append(weights @ values / (weights.sum() if primal.normalizer == "sum" else 1))
    return np.array(out)


def naive_batch(primal, q, k, v, key_mask):
    """`naive_attention` of each head and example: all arrays have the same leading axes, the mask without the heads."""
    if isinstance(primal, Heads):
        each = (naive_batch(part, *(x[..., s, :, :] for x in (q, k, v)), key_mask) for s, part in enumerate(primal))
        return np.stack(list(each), axis=-3)
    key_mask = np.ones(k.shape[:-1], bool) if key_mask is None else key_mask
    f = np.zeros((*q.shape[:-1], v.shape[-1]))
    for i in np.ndindex(f.shape[:-2]):
        f[i] = naive_attention(primal, q[i], k[i], v[i], key_mask[i])
    return f


def every_query_sees_a_key(primal, M, N, key_mask):
    """Whether no query of any head and example is left without a key."""
    if isinstance(primal, Heads):
        return all(every_query_sees_a_key(part, M, N, key_mask) for part in primal)
    rows = [np.ones(N, bool)] if key_mask is None else key_mask.reshape(-1, N)
    return all(any(row[j] and naive_sees(primal.support, i, j) for j in range(N)) for row in rows for i in range(M))


def naive_sees(support, i, j):
    match support:
        case Everything():
            return True
        case Window(radius):
            return i - radius <= j <= i + radius
        case Strided(stride):
            return j in range(i % stride, 10**6, stride)
        case Causal():
            return j <= i
        case Mask(table):
            return table[i][j]
        case _:
            raise NotImplementedError(support)


def naive_kernel(kernel, x, y):
    D, dot = len(x), math.fsum(x * y)
    match kernel:
        case Exponential(scale):
            return math.exp(dot * (D**-0.5 if scale is None else scale))
        case Gaussian(bandwidth):
            return math.exp(-((x - y) ** 2).sum() / (2 * (D**0.25 if bandwidth is None else bandwidth) ** 2))
        case Taylor(degree):
            return sum((dot / math.sqrt(D)) ** t / math.factorial(t) for t in range(degree + 1))
        case Polynomial(degree, offset):
            return (dot / math.sqrt(D) + offset) ** degree
        case EluPlusOne():
            return sum(
                (max(a, 0) + math.exp(min(a, 0))) * (max(b, 0) + math.exp(min(b, 0))) for a, b in zip(x, y, strict=True)
            )
        case RandomFeatures(count, seed):
            w = np.random.default_rng(seed).standard_normal((count, D))
            x, y = x / D**0.25, y / D**0.25
            return np.mean(np.exp(w @ x - x @ x / 2) * np.exp(w @ y - y @ y / 2))
        case _:
            raise NotImplementedError(kernel)


def naive_convolution(part, x, causal):
    taps = np.array(part.kernel).reshape(len(part.kernel), -1)
    width = part.width or 1
    height = -(-len(x) // width)
    rows, columns = taps.shape
    up, left = (rows - 1, columns - 1) if causal else (rows // 2, columns // 2)
    grid = np.zeros((height + rows, width + columns, x.shape[1]))
    for j, token in enumerate(x):
        grid[up + j // width, left + j % width] = token
    return np.array(
        [
            np.tensordot(taps, grid[i // width : i // width + rows, i % width : i % width + columns], 2)
            for i in range(len(x))
        ]
    )


def random_problem(seed, lead, M, N, D, Dv, masked):
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((*lead, *shape)) for shape in ((M, D), (N, D), (N, Dv)))
    return rng, q, k, v, rng.random((*lead, N)) < 0.7 if masked else None


def tensors(*arrays):
    return [None if x is None else torch.tensor(x, requires_grad=x.dtype == float) for x in arrays]
