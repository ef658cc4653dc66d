"""Encoders of time series and of sequences of tokens, with the attention of any primal."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from primal_dual.primal import Heads, Primal, heads
from primal_dual.types import Bool, Float, Num
from torch_impl import checks
from torch_impl.blocks import split_into_blocks
from torch_impl.models.convolution_stem import ConvolutionLayer, group_mask
from torch_impl.models.encoder_block import NORMS, EncoderBlock
from torch_impl.models.regularisation import Dropout, layer_rates
from torch_impl.models.tokens import Tokens

POOLINGS = ("flatten", "mean", "attention")


class Encoder(nn.Module):
    """What the encoders of series and of tokens share: embedding, learned positions, and the blocks.

    Padding is computed nowhere but in the attention, which masks it, so that it changes nothing.

    Parameters
    ----------
    embed : callable
        width -> the module that embeds packed inputs.
    length : int
        The largest number of tokens of a sequence.
    primal : str, Primal or Heads
        The attention: a name of the catalog, the primal of all heads, or one a head.
    layers, width, num_heads, feedforward : int
        The number of blocks, of features of a token, of heads, and of hidden features of the feed-forward networks.
    dropout : float
        The probability of dropout on the tokens; attention weights are never dropped.
    norm : str
        "batch", over the tokens of a batch, or "layer", after each branch; or "pre-layer", before it.
    stochastic_depth : float
        The probability that a branch of the last block is dropped; it grows linearly from zero in the first.
    learn_beta : bool
        Whether the heads learn their beta, if they have a BatchNorm.

    Raises
    ------
    ValueError
        For a norm of another name, and for a width that is no multiple of the number of heads.
    """

    def __init__(
        self,
        embed: Callable[[int], nn.Module],
        length: int,
        primal: str | Primal | Heads = "softmax",
        *,
        layers: int = 3,
        width: int = 128,
        num_heads: int = 8,
        feedforward: int = 256,
        dropout: float = 0.1,
        norm: str = "batch",
        stochastic_depth: float = 0.0,
        learn_beta: bool = False,
    ) -> None:
        super().__init__()
        checks.one_of("norm", norm, NORMS)
        if width % num_heads:
            raise ValueError(f"width: expected a multiple of {num_heads} heads; got {width}")
        self.length, self.width = length, width
        self.embed = embed(width)
        self.positions = nn.Parameter(torch.empty(length, width).uniform_(-0.02, 0.02))
        members = heads(primal, num_heads)
        rates = layer_rates(stochastic_depth, layers)
        self.blocks = nn.ModuleList(
            EncoderBlock(members, width, feedforward, dropout, norm, rate, learn_beta) for rate in rates
        )
        self.norm = nn.LayerNorm(width) if norm == "pre-layer" else nn.Identity()
        self.dropout = Dropout(dropout)

    def encode(
        self, inputs: Num[torch.Tensor, "B N _"], key_mask: Bool[torch.Tensor, "B N"] | None
    ) -> tuple[Float[torch.Tensor, "B N_longest width"], Tokens]:
        """gelu of the encoded tokens, zero at padding, and where the tokens are.

        The sequences are cut to the longest one of the batch, but in a graph that is exported.
        """
        B, N = inputs.shape[:2]
        if key_mask is not None and not torch.compiler.is_exporting():
            seen = key_mask.any(0).nonzero()
            N = int(seen.max()) + 1 if len(seen) else 1
            inputs, key_mask = inputs[:, :N], key_mask[:, :N]
        tokens = Tokens(key_mask, B, N)
        x = self.embed(tokens.pack(inputs)) + tokens.pack(self.positions[:N].expand(B, -1, -1))
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, tokens)
        return tokens.unpack(self.dropout(F.gelu(self.norm(x)))), tokens


class TimeSeriesEncoder(Encoder):
    """Time series to logits, after Zerveas et al. (KDD 2021):

        x = series W + b + P;   x = block(x), a block a layer;   logits = W_o pool(gelu(x))

    Convolutions may come before the tokens, and there are three ways to pool them.

    Parameters
    ----------
    features, length, classes : int
        The number of features of a time step, the largest number of time steps, and the number of classes.
    primal : str, Primal or Heads
        The attention.
    patch : int
        A token is so many consecutive time steps, side by side (Nie et al., ICLR 2023).
    convolutions : int
        The number of `ConvolutionLayer`s before the tokens: each halves the number of time steps.
    taps : int
        How many time steps such a layer sees, an odd number.
    pooling : str
        "flatten": all tokens of the series side by side, zero at padding. "mean": their mean. "attention": their mean
        with learned weights, softmax(x w).
    **options
        layers, width, num_heads, feedforward, dropout, norm, stochastic_depth and learn_beta of `Encoder`.

    Raises
    ------
    ValueError
        For a patch below 1, taps that are even, a pooling of another name, and for what `Encoder` refuses.

    Examples
    --------
    >>> model = TimeSeriesEncoder(features=3, length=12, classes=5, primal="bn", patch=2, width=16, num_heads=4)
    >>> model(torch.randn(7, 12, 3)).shape
    torch.Size([7, 5])
    """

    def __init__(
        self,
        features: int,
        length: int,
        classes: int,
        primal: str | Primal | Heads = "softmax",
        *,
        patch: int = 1,
        convolutions: int = 0,
        taps: int = 7,
        pooling: str = "flatten",
        **options: Any,
    ) -> None:
        if patch < 1:
            raise ValueError(f"patch: expected one time step or more; got {patch}")
        if taps % 2 == 0:
            raise ValueError(f"taps: expected an odd number; got {taps}")
        checks.one_of("pooling", pooling, POOLINGS)

        def embed(width: int) -> nn.Linear:
            return nn.Linear(patch * (width if convolutions else features), width)

        super().__init__(embed, -(-length // (patch * 2**convolutions)), primal, **options)
        self.features, self.time_steps, self.patch, self.pooling = features, length, patch, pooling
        inputs = [features, *[self.width] * convolutions]
        self.stem = nn.ModuleList(ConvolutionLayer(inputs[i], self.width, taps) for i in range(convolutions))
        if pooling == "attention":
            self.score = nn.Linear(self.width, 1)
        self.head = nn.Linear(self.width * (self.length if pooling == "flatten" else 1), classes)

    def forward(
        self, series: Float[torch.Tensor, "B N features"], key_mask: Bool[torch.Tensor, "B N"] | None = None
    ) -> Float[torch.Tensor, "B classes"]:
        """The logits of the classes.

        Parameters
        ----------
        series : tensor, (B, N, features)
            N is at most `length`.
        key_mask : tensor of booleans, (B, N), optional
            The padding mask: True for a time step, False for padding.

        Raises
        ------
        ValueError
            For longer series, and for another number of features.
        """
        if self.time_steps < series.shape[1] or series.shape[2] != self.features:
            expected = f"(B, N <= {self.time_steps}, {self.features})"
            raise ValueError(f"series: expected {expected}; got {tuple(series.shape)}")
        if key_mask is not None and self.stem:
            series = series.masked_fill(~key_mask[..., None], 0)
        for layer in self.stem:
            series, key_mask = layer(series, key_mask)
        x, tokens = self.encode(*self._patches(series, key_mask))
        return self.head(self._pooled(x, tokens))

    def _patches(
        self, series: Float[torch.Tensor, "B N features"], key_mask: Bool[torch.Tensor, "B N"] | None
    ) -> tuple[Float[torch.Tensor, "B patches _"], Bool[torch.Tensor, "B patches"] | None]:
        """Patches of time steps, zero at padding, and the mask of those that have a time step."""
        if self.patch == 1:
            return series, key_mask
        if key_mask is not None:
            series = series.masked_fill(~key_mask[..., None], 0)
        return split_into_blocks(series, self.patch).flatten(2), group_mask(key_mask, self.patch)

    def _pooled(self, x: Float[torch.Tensor, "B N width"], tokens: Tokens) -> Float[torch.Tensor, "B pooled"]:
        """The encoded tokens, zero at padding, as one vector."""
        if self.pooling == "flatten":
            return F.pad(x, (0, 0, 0, self.length - x.shape[1])).flatten(1)
        if self.pooling == "mean":
            return x.sum(1) / tokens.count
        scores = self.score(x)
        if tokens.key_mask is not None:
            scores = scores.masked_fill(~tokens.key_mask[..., None], -torch.inf)
        return (scores.softmax(1) * x).sum(1)


class TokenEncoder(Encoder):
    """Sequences of whole numbers to logits: W_o on the mean of the encoded tokens, without padding.

    Parameters
    ----------
    vocabulary, length, classes : int
        The number of different tokens, the largest number of tokens of a sequence, and the number of classes.
    primal : str, Primal or Heads
        The attention.
    **options
        layers, width, num_heads, feedforward, dropout, norm, stochastic_depth and learn_beta of `Encoder`.

    Examples
    --------
    >>> model = TokenEncoder(vocabulary=16, length=32, classes=10, primal="sh", width=16, num_heads=4)
    >>> model(torch.randint(16, (7, 32))).shape
    torch.Size([7, 10])
    """

    def __init__(
        self, vocabulary: int, length: int, classes: int, primal: str | Primal | Heads = "softmax", **options: Any
    ) -> None:
        super().__init__(lambda width: _Embedding(vocabulary, width), length, primal, **options)
        self.head = nn.Linear(self.width, classes)

    def forward(
        self, tokens: Num[torch.Tensor, "B N"], key_mask: Bool[torch.Tensor, "B N"] | None = None
    ) -> Float[torch.Tensor, "B classes"]:
        """The logits of the classes.

        Parameters
        ----------
        tokens : tensor of integers, (B, N)
            N is at most `length`.
        key_mask : tensor of booleans, (B, N), optional
            The padding mask: True for a token, False for padding.

        Raises
        ------
        ValueError
            For longer sequences.
        """
        if self.length < tokens.shape[1]:
            raise ValueError(f"tokens: expected (B, N <= {self.length}); got {tuple(tokens.shape)}")
        x, where = self.encode(tokens[..., None], key_mask)
        return self.head(x.sum(1) / where.count)


class _Embedding(nn.Embedding):
    """torch's embedding of packed tokens, (T, 1)."""

    def forward(self, token: Num[torch.Tensor, "T 1"]) -> Float[torch.Tensor, "T width"]:
        return super().forward(token[..., 0].long())
