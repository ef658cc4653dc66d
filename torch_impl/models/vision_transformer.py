"""A vision transformer with any primal's attention."""

import torch
import torch.nn.functional as F
from torch import nn

from torch_impl.drop_in.timm import timm_attention
from torch_impl.models.regularisation import layer_rates, survival


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
        rates = layer_rates(stochastic_depth, layers)
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
        return branch * survival(len(branch), self.rate, branch.device)


def _initialise(module):
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
