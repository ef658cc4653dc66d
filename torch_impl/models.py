"""The models of the benchmarks, with any primal's attention: encoders of series and of tokens, a vision transformer."""

import torch
import torch.nn.functional as F
from torch import nn

from primal_dual.primal import heads
from torch_impl.attention import attention_to_zeros
from torch_impl.drop_in import timm_attention

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
            _Block(members, width, feedforward, dropout, norm, rate) for rate in _rates(stochastic_depth, layers)
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
        x = self.embed(tokens.real(inputs)) + tokens.real(self.positions[:N].expand(B, -1, -1))
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
        x, real = self.encode(tokens[..., None], key_mask)
        return self.head(x.sum(1) / real.count)


class _Embedding(nn.Embedding):
    def forward(self, index):
        return super().forward(index[..., 0].long())


class Dropout(nn.Dropout):
    """torch's dropout, but on a CPU one random word of 64 bits decides over eight numbers, p to a multiple of 1/256.

    Drawing a word for each takes a quarter of the time of an epoch.
    """

    def forward(self, x):
        dropped = round(256 * self.p)
        if not self.training or dropped in (0, 256) or x.device.type != "cpu":
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        keep = words.view(torch.int8)[: x.numel()].view(x.shape).to(x.dtype).ge_(dropped - 128)
        return x * keep.mul_(256 / (256 - dropped))


class Tokens:
    """The real tokens of a batch, (B, N, F) <-> (T, F); zero where there is none."""

    def __init__(self, key_mask, B, N):
        self.key_mask, self.shape = key_mask, (B, N)
        self.index = None if key_mask is None else key_mask.flatten().nonzero()[:, 0]

    @property
    def count(self):
        """Real tokens of each sequence, (B, 1)."""
        return self.shape[1] if self.key_mask is None else self.key_mask.sum(-1, keepdim=True)

    def real(self, x):
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
        return branch * tokens.real(_survival(B, self.rate, branch.device).expand(-1, N, -1))

    def _attend(self, x, tokens):
        q, k, v = tokens.padded(self.qkv(x)).unflatten(-1, (3, len(self.heads), -1)).permute(2, 0, 3, 1, 4)
        f = attention_to_zeros(self.heads, q, k, v, tokens.key_mask)
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
        rates = _rates(stochastic_depth, layers)
        self.blocks = nn.ModuleList(_VisionBlock(primal, width, num_heads, mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        self.apply(_initialise)

    def forward(self, images, key_mask=None):
        """images (B, channels, size, size) -> (B, classes); there is no padding, and so no key_mask."""
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
        if not self.training or not self.rate:
            return branch
        return branch * _survival(len(branch), self.rate, branch.device)


def _rates(last, layers):
    """Of stochastic depth (Huang et al., ECCV 2016), a layer each."""
    return [last * i / max(layers - 1, 1) for i in range(layers)]


def _survival(examples, rate, device):
    """(examples, 1, 1): zero with probability `rate`, else 1 / (1 - rate)."""
    return (torch.rand(examples, 1, 1, device=device) >= rate) / (1 - rate)


def _initialise(module):
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
