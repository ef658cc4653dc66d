"""A self-attention layer and a small transformer encoder, as functions of parameters: twins of primal_dual.layers."""

import torch

from primal_dual.primal import Heads
from torch_impl import checks
from torch_impl.expansion import attention


def self_attention(params, x, primal, key_mask=None):
    """x + sum_s f^s(x W_Q^s) W_O^s, with f^s head s's attention to x W_K^s and x W_V^s: (..., N, E) -> (..., N, E).

    params: W_Q, W_K, W_V (E, H Dh) and W_O (H Dh, E), of which head s has the s-th block of Dh columns, or rows of W_O;
    H = 1 for a Primal, else the number of Heads. key_mask (..., N): True = a real token.

    Raises ValueError for a missing parameter, shapes that do not fit, and what `attention` refuses. Source: arXiv
    2406.13781.
    """
    checks.tensor("x", x, "N E")
    heads = primal if isinstance(primal, Heads) else Heads(primal)
    W_Q, W_K, W_V, W_O = (_matrix(params, name) for name in ("W_Q", "W_K", "W_V", "W_O"))
    H, E, wide, deep = len(heads), x.shape[-1], W_Q.shape[1], W_V.shape[1]
    fitting = {"W_Q": (W_Q, (E, wide)), "W_K": (W_K, (E, wide)), "W_V": (W_V, (E, deep)), "W_O": (W_O, (deep, E))}
    for name, (W, shape) in fitting.items():
        if tuple(W.shape) != shape or not wide or not deep or wide % H or deep % H:
            got = ", ".join(f"{n} {tuple(W.shape)}" for n, (W, _) in fitting.items())
            raise ValueError(f"{name}: expected (E, H Dh), W_O (H Dh, E), with E = {E} and H = {H}; got {got}")
    q, k, v = ((x @ W).unflatten(-1, (H, -1)).transpose(-2, -3) for W in (W_Q, W_K, W_V))
    f = attention(heads, q, k, v, key_mask, query_mask=key_mask)
    return x + f.transpose(-2, -3).flatten(-2) @ W_O


def encoder(params, tokens, primal, key_mask=None):
    """A post-norm transformer encoder: tokens (..., N, F) -> logits (..., classes), from the mean over real tokens.

        x = tokens W_E + b_E + P;   x = norm(x + attention);   x = norm(x + relu(x W_1 + b_1) W_2 + b_2), a layer each

    params: those of primal_dual.encoder_params, as tensors. key_mask (..., N): True = a real token. Raises ValueError
    for more tokens than positions P, a missing parameter, and what `self_attention` refuses.
    """
    checks.tensor("tokens", tokens, "N F")
    P, W_E, N = _matrix(params, "P"), _matrix(params, "W_E"), tokens.shape[-2]
    missing = {"b_E", "layers", "W", "b"} - set(params)
    if missing:
        raise ValueError(f"params: expected those of encoder_params; got none named {', '.join(sorted(missing))}")
    if len(P) < N or tokens.shape[-1] != len(W_E):
        raise ValueError(f"tokens: expected (..., N <= {len(P)}, {len(W_E)}); got {tuple(tokens.shape)}")
    x = tokens @ W_E + params["b_E"] + P[:N]
    for layer in params["layers"]:
        x = _norm(self_attention(layer, x, primal, key_mask))
        x = _norm(x + (x @ layer["W_1"] + layer["b_1"]).relu() @ layer["W_2"] + layer["b_2"])
    valid = torch.ones(N, dtype=torch.bool, device=x.device) if key_mask is None else key_mask
    share = valid.to(x.dtype) / valid.sum(-1, keepdim=True)
    return (share[..., None, :] @ x)[..., 0, :] @ params["W"] + params["b"]


def _matrix(params, name):
    if not isinstance(params, dict) or name not in params:
        raise ValueError(f"params: expected a dictionary with {name}; got none")
    W = params[name]
    if not isinstance(W, torch.Tensor) or W.ndim != 2:
        raise ValueError(
            f"{name}: expected a matrix; got {tuple(W.shape) if isinstance(W, torch.Tensor) else type(W).__name__}"
        )
    return W


def _norm(x):
    return torch.nn.functional.layer_norm(x, x.shape[-1:])
