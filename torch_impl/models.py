"""The models of the benchmarks: an encoder of time series and a vision transformer, with any primal's attention."""

import torch
import torch.nn.functional as F
from torch import nn

from primal_dual.primal import heads
from torch_impl.attention import attention
from torch_impl.drop_in import timm_attention

NORMS = ("batch", "layer", "pre-layer")


class TimeSeriesEncoder(nn.Module):
    """Time series (B, N, features) to logits (B, classes), after Zerveas et al. (KDD 2021).

        x = series W + b + P;   x = norm(x + attention(x));   x = norm(x + W_2 gelu(W_1 x));   logits = W_o gelu(x)

    with W_o on all tokens of the series side by side, zero where padded. length: the most tokens; primal: a catalog
    name, a Primal, or Heads; norm: "batch" (over the real tokens of a batch) or "layer", after each branch, or
    "pre-layer", before it. Only real tokens are computed, apart from the attention itself, so that padding changes
    nothing. Dropout acts on tokens, not on attention weights. Raises ValueError for a norm of another name, a width
    that is no multiple of the heads, and series that are longer or have other features.
    """

    def __init__(
        self,
        features,
        length,
        classes,
        primal="softmax",
        *,
        layers=3,
        width=128,
        num_heads=8,
        feedforward=256,
        dropout=0.1,
        norm="batch",
    ):
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm: expected one of {', '.join(NORMS)}; got {norm!r}")
        if width % num_heads:
            raise ValueError(f"width: expected a multiple of {num_heads} heads; got {width}")
        self.features, self.length = features, length
        self.embed = nn.Linear(features, width)
        self.positions = nn.Parameter(torch.empty(length, width).uniform_(-0.02, 0.02))
        members = heads(primal, num_heads)
        self.blocks = nn.ModuleList(_Block(members, width, feedforward, dropout, norm) for _ in range(layers))
        self.norm = nn.LayerNorm(width) if norm == "pre-layer" else nn.Identity()
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(length * width, classes)

    def forward(self, series, key_mask=None):
        """series (B, N, features), key_mask (B, N), True = real -> (B, classes)."""
        B, N, features = series.shape
        if self.length < N or features != self.features:
            raise ValueError(f"series: expected (B, N <= {self.length}, {self.features}); got {tuple(series.shape)}")
        if key_mask is not None:
            N = int(key_mask.any(0).nonzero().max()) + 1  # of the longest series of this batch
            series, key_mask = series[:, :N], key_mask[:, :N]
        tokens = _Tokens(key_mask, B, N)
        x = self.embed(tokens.real(series)) + tokens.real(self.positions[:N].expand(B, -1, -1))
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, tokens)
        x = tokens.padded(self.dropout(F.gelu(self.norm(x))))
        return self.head(F.pad(x, (0, 0, 0, self.length - N)).flatten(1))


class Dropout(nn.Dropout):
    """torch's dropout, but on a CPU one random word of 64 bits decides over four numbers, p to a multiple of 2^-16.

    Drawing a word for each takes a quarter of the time of an epoch.
    """

    def forward(self, x):
        if not self.training or not self.p or x.device.type != "cpu":
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        keep = words.view(torch.int16)[: x.numel()].view(x.shape) >= round(2**16 * self.p) - 2**15
        return x * (keep.to(x.dtype) / (1 - self.p))


class _Tokens:
    """The real tokens of a batch, (B, N, F) <-> (T, F); zero where there is none."""

    def __init__(self, key_mask, B, N):
        self.key_mask, self.shape = key_mask, (B, N)
        self.index = None if key_mask is None else key_mask.flatten().nonzero()[:, 0]

    def real(self, x):
        x = x.reshape(-1, x.shape[-1])
        return x if self.index is None else x[self.index]

    def padded(self, x):
        if self.index is not None:
            x = x.new_zeros(self.shape[0] * self.shape[1], x.shape[-1]).index_copy(0, self.index, x)
        return x.unflatten(0, self.shape)


class _Block(nn.Module):
    """Attention and a feed-forward network, each with a residual and a norm."""

    def __init__(self, members, width, feedforward, dropout, norm):
        super().__init__()
        self.heads, self.pre = members, norm == "pre-layer"
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2 = ((nn.BatchNorm1d if norm == "batch" else nn.LayerNorm)(width) for _ in range(2))
        self.dropout = Dropout(dropout)

    def forward(self, x, tokens):
        if self.pre:
            x = x + self.dropout(self._attend(self.norm1(x), tokens))
            return x + self.dropout(self._feed(self.norm2(x)))
        x = self.norm1(x + self.dropout(self._attend(x, tokens)))
        return self.norm2(x + self.dropout(self._feed(x)))

    def _attend(self, x, tokens):
        q, k, v = tokens.padded(self.qkv(x)).unflatten(-1, (3, len(self.heads), -1)).permute(2, 0, 3, 1, 4)
        f = attention(self.heads, q, k, v, tokens.key_mask)
        return self.proj(tokens.real(f.transpose(1, 2).flatten(-2)))

    def _feed(self, x):
        return self.down(self.dropout(F.gelu(self.up(x))))


class VisionTransformer(nn.Module):
    """Images (B, channels, size, size) to logits (B, classes): ViT (Dosovitskiy et al., ICLR 2021), pre-norm.

    Weights have timm's names, so that its published ones load. stochastic_depth: the rate of the last block, growing
    linearly from zero. Raises ValueError for images of another size and a size that is no multiple of the patch.
    """

    def __init__(
        self,
        primal="softmax",
        *,
        classes=1000,
        size=224,
        patch=16,
        channels=3,
        layers=12,
        width=192,
        num_heads=3,
        mlp_ratio=4,
        stochastic_depth=0.0,
    ):
        super().__init__()
        if size % patch:
            raise ValueError(f"size: expected a multiple of the patch, {patch}; got {size}")
        self.image = (channels, size, size)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(channels, width, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2 + 1, width))
        rates = [stochastic_depth * i / max(layers - 1, 1) for i in range(layers)]
        self.blocks = nn.ModuleList(_VisionBlock(primal, width, num_heads, mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        self.apply(_initialise)

    def forward(self, images):
        if images.shape[1:] != self.image:
            raise ValueError(f"images: expected (B, {', '.join(map(str, self.image))}); got {tuple(images.shape)}")
        x = self.patch_embed["proj"](images).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


def deit_tiny(primal="softmax", **options):
    """DeiT-tiny/16 (Touvron et al., ICML 2021): 12 layers, width 192, 3 heads; 5.7 million weights at 1000 classes."""
    return VisionTransformer(primal, **options)


class _VisionBlock(nn.Module):
    def __init__(self, primal, width, num_heads, mlp_ratio, rate):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = timm_attention(primal)(width, num_heads, qkv_bias=True)
        hidden = int(width * mlp_ratio)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})
        self.rate = rate

    def forward(self, x):
        x = x + self._kept(self.attn(self.norm1(x)))
        return x + self._kept(self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))))

    def _kept(self, branch):
        """Stochastic depth (Huang et al., 2016): in training, drop the branch of an example with probability `rate`."""
        if not self.training or not self.rate:
            return branch
        keep = torch.rand(len(branch), 1, 1, device=branch.device) >= self.rate
        return branch * keep / (1 - self.rate)


def _initialise(module):
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
