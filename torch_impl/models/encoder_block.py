"""A block of the encoders of series and of tokens: attention, then a feed-forward network."""

import torch
import torch.nn.functional as F
from torch import nn

from primal_dual.primal import Heads
from primal_dual.types import Float
from torch_impl.expansion import attention_unchecked
from torch_impl.models.regularisation import Dropout, survival
from torch_impl.models.tokens import Tokens
from torch_impl.transforms import learned_beta

NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "pre-layer": nn.LayerNorm}


class EncoderBlock(nn.Module):
    """Attention and a feed-forward network, each added to its input x and followed, or preceded, by a norm:

        x = norm(x + attention(x));   x = norm(x + W_2 gelu(W_1 x))

    or, with norm = "pre-layer", x = x + attention(norm(x)); x = x + W_2 gelu(W_1 norm(x)).

    Parameters
    ----------
    members : Heads
        The primal of each head.
    width : int
        The number of features of a token, E.
    feedforward : int
        The number of hidden features of the feed-forward network.
    dropout : float
        The probability of dropout on the tokens; attention weights are never dropped.
    norm : str
        "batch", "layer" or "pre-layer".
    rate : float
        The probability that stochastic depth drops a branch of an example.
    learn_beta : bool
        Whether the heads learn their beta, if they have a BatchNorm.
    """

    def __init__(
        self,
        members: Heads,
        width: int,
        feedforward: int,
        dropout: float,
        norm: str,
        rate: float,
        learn_beta: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.norm_comes_first, self.rate = members, norm == "pre-layer", rate
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2 = NORMS[norm](width), NORMS[norm](width)
        self.dropout = Dropout(dropout)
        self.beta = learned_beta(members, self.proj.weight) if learn_beta else None

    def forward(self, x: Float[torch.Tensor, "T E"], tokens: Tokens) -> Float[torch.Tensor, "T E"]:
        """Packed tokens to packed tokens."""
        if self.norm_comes_first:
            x = x + self._kept(self._attend(self.norm1(x), tokens), tokens)
            return x + self._kept(self._feed(self.norm2(x)), tokens)
        x = self.norm1(x + self._kept(self._attend(x, tokens), tokens))
        return self.norm2(x + self._kept(self._feed(x), tokens))

    def _kept(self, branch: Float[torch.Tensor, "T E"], tokens: Tokens) -> Float[torch.Tensor, "T E"]:
        """A branch after dropout and stochastic depth."""
        branch = self.dropout(branch)
        if not self.training or not self.rate:
            return branch
        B, N = tokens.shape
        return branch * tokens.pack(survival(B, self.rate, branch.device).expand(-1, N, -1))

    def _attend(self, x: Float[torch.Tensor, "T E"], tokens: Tokens) -> Float[torch.Tensor, "T E"]:
        q, k, v = tokens.unpack(self.qkv(x)).unflatten(-1, (3, len(self.heads), -1)).permute(2, 0, 3, 1, 4)
        mask = tokens.key_mask
        f = attention_unchecked(self.heads, q, k, v, mask, query_mask=mask, beta=self.beta)  # (B, heads, N, E / heads)
        return self.proj(tokens.pack(f.transpose(1, 2).flatten(-2)))

    def _feed(self, x: Float[torch.Tensor, "T E"]) -> Float[torch.Tensor, "T E"]:
        return self.down(self.dropout(F.gelu(self.up(x))))
