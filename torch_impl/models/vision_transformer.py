"""A vision transformer with the attention of any primal."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from primal_dual.primal import Heads, Primal
from primal_dual.types import Float
from torch_impl.drop_in.timm import TimmAttention, timm_attention
from torch_impl.models.regularisation import layer_rates, survival


class VisionTransformer(nn.Module):
    """Images to logits: ViT (Dosovitskiy et al., ICLR 2021), with the norms before the branches.

    Its weights have the names of timm's, so that timm's published weights can be loaded.

    Parameters
    ----------
    primal : str, Primal or Heads
        The attention: a name of the catalog, the primal of all heads, or one a head.
    classes, size, channels : int
        The number of classes, the height and width of an image, and the number of its channels.
    convolutions : int
        Before the patches, each image goes through so many pairs of convolutions, 3 x 3, the first of each of stride 2,
        each with batch normalisation and gelu. The last pair has as many channels as a token has features (Xiao et al.,
        NeurIPS 2021).
    patch : int
        The height and width of the patch that makes a token: of pixels, or of what the convolutions put out.
    layers, width, num_heads, mlp_ratio : int
        The number of blocks, of features of a token, of heads, and of hidden features of the feed-forward networks in
        multiples of the width.
    stochastic_depth : float
        The probability that a branch of the last block is dropped; it grows linearly from zero in the first.
    learn_beta : bool
        Whether the heads learn their beta, if they have a BatchNorm.

    Raises
    ------
    ValueError
        For a size, halved by each pair of convolutions, that is no multiple of the patch; and for a width that cannot
        be halved from each pair to the one before it.

    Examples
    --------
    >>> model = VisionTransformer("bn+sh", classes=10, size=8, patch=2, channels=1, layers=2, width=16, num_heads=4)
    >>> model(torch.randn(7, 1, 8, 8)).shape
    torch.Size([7, 10])
    """

    def __init__(
        self,
        primal: str | Primal | Heads = "softmax",
        *,
        classes: int = 1000,
        size: int = 224,
        patch: int = 16,
        channels: int = 3,
        convolutions: int = 0,
        layers: int = 12,
        width: int = 192,
        num_heads: int = 3,
        mlp_ratio: int = 4,
        stochastic_depth: float = 0.0,
        learn_beta: bool = False,
    ) -> None:
        super().__init__()
        rows = -(-size // 2**convolutions)
        if rows % patch:
            raise ValueError(f"size: expected a multiple of the patch, {patch}; got {rows}")
        self.image = (channels, size, size)
        self.stem = _stem(channels, width, convolutions)
        pixel = width if convolutions else channels
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(pixel, width, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (rows // patch) ** 2 + 1, width))
        rates = layer_rates(stochastic_depth, layers)
        attention = timm_attention(primal, learn_beta)
        self.blocks = nn.ModuleList(_VisionBlock(attention, width, num_heads, mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        self.apply(_initialise)

    def forward(
        self, images: Float[torch.Tensor, "B channels H W"], key_mask: None = None
    ) -> Float[torch.Tensor, "B classes"]:
        """The logits of the classes. Images are not padded: `key_mask` is there for the trainer, and is not used.

        Raises
        ------
        ValueError
            For images of another size.
        """
        if images.shape[1:] != self.image:
            raise ValueError(f"images: expected (B, {', '.join(map(str, self.image))}); got {tuple(images.shape)}")
        x = self.patch_embed["proj"](self.stem(images)).flatten(2).mT
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


def deit_tiny(primal: str | Primal | Heads = "softmax", **options: Any) -> VisionTransformer:
    """The configuration DeiT-tiny/16 (Touvron et al., ICML 2021), which is what VisionTransformer is by default.

    12 layers, width 192, 3 heads; 5.7 million weights at 1,000 classes. `options` are those of VisionTransformer.
    """
    return VisionTransformer(primal, **options)


class _VisionBlock(nn.Module):
    """x = x + attention(norm(x)); x = x + W_2 gelu(W_1 norm(x)), on tokens (B, N, E)."""

    def __init__(self, attention: type[TimmAttention], width: int, num_heads: int, mlp_ratio: int, rate: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = attention(width, num_heads, qkv_bias=True)
        hidden = width * mlp_ratio
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})
        self.rate = rate

    def forward(self, x: Float[torch.Tensor, "B N E"]) -> Float[torch.Tensor, "B N E"]:
        x = x + self._kept(self.attn(self.norm1(x)))
        return x + self._kept(self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))))

    def _kept(self, branch: Float[torch.Tensor, "B N E"]) -> Float[torch.Tensor, "B N E"]:
        """A branch after stochastic depth."""
        if not self.training or not self.rate:
            return branch
        return branch * survival(len(branch), self.rate, branch.device)


def _stem(channels: int, width: int, convolutions: int) -> nn.Sequential:
    """Pairs of convolutions: channels -> width / 2^(convolutions - 1) -> ... -> width / 2 -> width."""
    multiple = 2 ** max(convolutions - 1, 0)
    if width % multiple:
        raise ValueError(f"width: expected a multiple of {multiple}, for {convolutions} convolutions; got {width}")
    widths = [channels, *(width // 2**i for i in reversed(range(convolutions)))]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [*_convolution(before, after, stride=2), *_convolution(after, after, stride=1)]
    return nn.Sequential(*layers)


def _convolution(before: int, after: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.GELU()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
