"""A self-attention layer and a small transformer encoder, as functions of parameters: see primal_dual.layers."""

from typing import Any

import torch

from primal_dual.layers import check_encoder, check_feedforward, check_projections
from primal_dual.primal import Heads, Primal
from primal_dual.types import Bool, Float
from torch_impl import checks
from torch_impl.expansion import attention

Params = dict[str, Any]


def self_attention(
    params: Params,
    x: Float[torch.Tensor, "... N E"],
    primal: Primal | Heads,
    key_mask: Bool[torch.Tensor, "... N"] | None = None,
) -> Float[torch.Tensor, "... N E"]:
    """Multi-head self-attention with a residual connection: x + sum_s f^s(x W_Q^s) W_O^s.

    This is the torch version of `primal_dual.self_attention`. Parameters and errors are the same, but for tensors in
    the place of arrays.

    Examples
    --------
    >>> params = {name: torch.eye(2) for name in ("W_Q", "W_K", "W_V", "W_O")}
    >>> self_attention(params, torch.ones(3, 2), Primal()).tolist()
    [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]
    """
    checks.tensor("x", x, "N E")
    heads = primal if isinstance(primal, Heads) else Heads(primal)
    H = len(heads)
    W = {name: _matrix(params, name) for name in ("W_Q", "W_K", "W_V", "W_O")}
    check_projections({name: tuple(matrix.shape) for name, matrix in W.items()}, x.shape[-1], H)
    q, k, v = _split(x @ W["W_Q"], H), _split(x @ W["W_K"], H), _split(x @ W["W_V"], H)
    f = attention(heads, q, k, v, key_mask, query_mask=key_mask)
    return x + f.transpose(-2, -3).flatten(-2) @ W["W_O"]


def encoder(
    params: Params,
    tokens: Float[torch.Tensor, "... N F"],
    primal: Primal | Heads,
    key_mask: Bool[torch.Tensor, "... N"] | None = None,
) -> Float[torch.Tensor, "... classes"]:
    """A transformer encoder with a norm after each branch: tokens to logits, from the mean over the valid tokens.

    This is the torch version of `primal_dual.encoder`, which has the equation. Parameters and errors are the same, but
    for tensors in the place of arrays, also in the dictionary of `primal_dual.encoder_params`.
    """
    checks.tensor("tokens", tokens, "N F")
    P, W_E, N = _matrix(params, "P"), _matrix(params, "W_E"), tokens.shape[-2]
    check_encoder(params, tuple(tokens.shape), len(P), len(W_E))
    x = tokens @ W_E + params["b_E"] + P[:N]
    for layer in params["layers"]:
        x = _norm(self_attention(layer, x, primal, key_mask))
        check_feedforward(layer, x.shape[-1])
        x = _norm(x + (x @ layer["W_1"] + layer["b_1"]).relu() @ layer["W_2"] + layer["b_2"])
    valid = torch.ones(N, dtype=torch.bool, device=x.device) if key_mask is None else key_mask
    weights = valid.to(x.dtype) / valid.sum(-1, keepdim=True)
    return (weights[..., None, :] @ x)[..., 0, :] @ params["W"] + params["b"]


def _matrix(params: Any, name: str) -> Float[torch.Tensor, "rows columns"]:
    if not isinstance(params, dict) or name not in params:
        raise ValueError(f"params: expected a dictionary with {name}; got none")
    W = params[name]
    if not isinstance(W, torch.Tensor) or W.ndim != 2:
        got = tuple(W.shape) if isinstance(W, torch.Tensor) else type(W).__name__
        raise ValueError(f"{name}: expected a matrix; got {got}")
    return W


def _split(x: Float[torch.Tensor, "... N width"], H: int) -> Float[torch.Tensor, "... {H} N Dh"]:
    return x.unflatten(-1, (H, -1)).transpose(-2, -3)


def _norm(x: Float[torch.Tensor, "... N E"]) -> Float[torch.Tensor, "... N E"]:
    return torch.nn.functional.layer_norm(x, x.shape[-1:])
