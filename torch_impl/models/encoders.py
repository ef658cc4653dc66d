"""The models of the benchmarks, with any primal's attention: encoders of series and of tokens, a vision transformer."""

import torch
import torch.nn.functional as F
from torch import nn

from primal_dual.primal import heads
from torch_impl.expansion import attention_unchecked
from torch_impl.models.regularisation import Dropout, layer_rates, survival

NORMS = ("batch", "layer", "pre-layer")


class _Encoder(nn.Module):
    """What the encoders of series and of tokens share.

    length: the most tokens; primal: a catalog name, a Primal, or Heads; norm: "batch" (over the real tokens of a batch)
    or "layer", after each branch, or "pre-layer", before it. Only real tokens are computed, apart from the attention
    itself, so that padding changes nothing. Dropout acts on tokens, not on attention weights. stochastic_depth: the
    rate of the last block, growing linearly from zero. Raises ValueError for a norm of another name and a width that is
    no multiple of the heads.
    """

    def __init__(
        self,
        embed,
        length,
        primal="softmax",
        *,
        layers=3,
        width=128,
        num_heads=8,
        feedforward=256,
        dropout=0.1,
        norm="batch",
        stochastic_depth=0.0,
    ):
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm: expected one of {', '.join(NORMS)}; got {norm!r}")
        if width % num_heads:
            raise ValueError(f"width: expected a multiple of {num_heads} heads; got {width}")
        self.length, self.width = length, width
        self.embed = embed(width)
        self.positions = nn.Parameter(torch.empty(length, width).uniform_(-0.02, 0.02))
        members = heads(primal, num_heads)
        self.blocks = nn.ModuleList(
            _Block(members, width, feedforward, dropout, norm, rate) for rate in layer_rates(stochastic_depth, layers)
        )
        self.norm = nn.LayerNorm(width) if norm == "pre-layer" else nn.Identity()
        self.dropout = Dropout(dropout)

    def encode(self, inputs, key_mask):
        """inputs (B, N, ...) -> gelu of the encoded tokens (B, N', width), N' of the longest, and their Tokens."""
        B, N = inputs.shape[:2]
        if key_mask is not None:
            N = int(key_mask.any(0).nonzero().max()) + 1  # of the longest of this batch
            inputs, key_mask = inputs[:, :N], key_mask[:, :N]
        tokens = Tokens(key_mask, B, N)
        x = self.embed(tokens.valid(inputs)) + tokens.valid(self.positions[:N].expand(B, -1, -1))
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, tokens)
        return tokens.padded(self.dropout(F.gelu(self.norm(x)))), tokens


class TimeSeriesEncoder(_Encoder):
    """Time series (B, N, features) to logits (B, classes), after Zerveas et al. (KDD 2021).

        x = series W + b + P;   x = norm(x + attention(x));   x = norm(x + W_2 gelu(W_1 x));   logits = W_o gelu(x)

    with W_o on all tokens of the series side by side, zero where padded. patch: time steps a token, one after the other
    (Nie et al., ICLR 2023). options: primal, layers, width, num_heads, feedforward, dropout, norm ("batch", "layer",
    "pre-layer"), stochastic_depth. Padding changes nothing. Raises ValueError for a norm of another name, a width that
    is no multiple of the heads, a patch below one, and series that are longer than `length` or have other features.
    """

    def __init__(self, features, length, classes, primal="softmax", *, patch=1, **options):
        if patch < 1:
            raise ValueError(f"patch: expected one time step or more; got {patch}")
        super().__init__(lambda width: nn.Linear(patch * features, width), -(-length // patch), primal, **options)
        self.features, self.longest, self.patch = features, length, patch
        self.head = nn.Linear(self.length * self.width, classes)

    def forward(self, series, key_mask=None):
        """series (B, N, features), key_mask (B, N), True = real -> (B, classes)."""
        if self.longest < series.shape[1] or series.shape[2] != self.features:
            expected = f"(B, N <= {self.longest}, {self.features})"
            raise ValueError(f"series: expected {expected}; got {tuple(series.shape)}")
        x, _ = self.encode(*self._patches(series, key_mask))
        return self.head(F.pad(x, (0, 0, 0, self.length - x.shape[1])).flatten(1))

    def _patches(self, series, key_mask):
        """(B, N, features) -> (B, N / patch, patch features), zero where padded, and which of them have a real step."""
        if self.patch == 1:
            return series, key_mask
        missing = -series.shape[1] % self.patch
        if key_mask is not None:
            series = series.masked_fill(~key_mask[..., None], 0)
            key_mask = F.pad(key_mask, (0, missing)).unflatten(1, (-1, self.patch)).any(-1)
        return F.pad(series, (0, 0, 0, missing)).unflatten(1, (-1, self.patch)).flatten(2), key_mask


class TokenEncoder(_Encoder):
    """Tokens (B, N) of a vocabulary to logits (B, classes): W_o on the mean of the encoded tokens that are real.

    options and errors as in TimeSeriesEncoder.
    """

    def __init__(self, vocabulary, length, classes, primal="softmax", **options):
        super().__init__(lambda width: _Embedding(vocabulary, width), length, primal, **options)
        self.head = nn.Linear(self.width, classes)

    def forward(self, tokens, key_mask=None):
        """tokens (B, N), whole numbers, key_mask (B, N), True = real -> (B, classes)."""
        if self.length < tokens.shape[1]:
            raise ValueError(f"tokens: expected (B, N <= {self.length}); got {tuple(tokens.shape)}")
        x, valid = self.encode(tokens[..., None], key_mask)
        return self.head(x.sum(1) / valid.count)


class _Embedding(nn.Embedding):
    def forward(self, index):
        return super().forward(index[..., 0].long())


class Tokens:
    """The real tokens of a batch, (B, N, F) <-> (T, F); zero where there is none."""

    def __init__(self, key_mask, B, N):
        self.key_mask, self.shape = key_mask, (B, N)
        self.index = None if key_mask is None else key_mask.flatten().nonzero()[:, 0]

    @property
    def count(self):
        """Real tokens of each sequence, (B, 1)."""
        return self.shape[1] if self.key_mask is None else self.key_mask.sum(-1, keepdim=True)

    def valid(self, x):
        x = x.reshape(-1, x.shape[-1])
        return x if self.index is None else x.index_select(0, self.index)

    def padded(self, x):
        if self.index is not None:
            x = x.new_zeros(self.shape[0] * self.shape[1], x.shape[-1]).index_copy_(0, self.index, x)
        return x.unflatten(0, self.shape)


class _Block(nn.Module):
    """Attention and a feed-forward network, each with a residual and a norm."""

    def __init__(self, members, width, feedforward, dropout, norm, rate):
        super().__init__()
        self.heads, self.pre, self.rate = members, norm == "pre-layer", rate
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2 = ((nn.BatchNorm1d if norm == "batch" else nn.LayerNorm)(width) for _ in range(2))
        self.dropout = Dropout(dropout)

    def forward(self, x, tokens):
        if self.pre:
            x = x + self._kept(self._attend(self.norm1(x), tokens), tokens)
            return x + self._kept(self._feed(self.norm2(x)), tokens)
        x = self.norm1(x + self._kept(self._attend(x, tokens), tokens))
        return self.norm2(x + self._kept(self._feed(x), tokens))

    def _kept(self, branch, tokens):
        branch = self.dropout(branch)
        if not self.training or not self.rate:
            return branch
        B, N = tokens.shape
        return branch * tokens.valid(survival(B, self.rate, branch.device).expand(-1, N, -1))

    def _attend(self, x, tokens):
        q, k, v = tokens.padded(self.qkv(x)).unflatten(-1, (3, len(self.heads), -1)).permute(2, 0, 3, 1, 4)
        f = attention_unchecked(self.heads, q, k, v, tokens.key_mask)
        return self.proj(tokens.valid(f.transpose(1, 2).flatten(-2)))

    def _feed(self, x):
        return self.down(self.dropout(F.gelu(self.up(x))))
