"""The baseline of the benchmark of training: the encoder of series, made of torch's own layers."""

import torch
import torch.nn.functional as F
from torch import nn

from primal_dual.types import Bool, Float
from torch_impl.training.recipes.kinds import SeriesRecipe

# How the model of the timed epoch is trained, ours and torch's. It stays as it is when the recipe of the set is tuned.
EPOCH = SeriesRecipe(
    "JapaneseVowels", num_heads=16, dropout=0.1, norm="layer", patch=1, warp=0.0, scale=0.0, jitter=0.0, scales="1 2"
)


class Baseline(nn.Module):
    """The encoder of EPOCH made of torch's own layers: the norms after the branches, all tokens, padding masked.

    Parameters
    ----------
    features, length, classes : int
        As those of `TimeSeriesEncoder`.
    """

    def __init__(self, features: int, length: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, EPOCH.width)
        self.positions = nn.Parameter(torch.empty(length, EPOCH.width).uniform_(-0.02, 0.02))
        layer = nn.TransformerEncoderLayer(
            EPOCH.width,
            EPOCH.num_heads,
            EPOCH.feedforward,
            dropout=EPOCH.dropout,
            activation="gelu",
            batch_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, EPOCH.layers, enable_nested_tensor=False)
        self.dropout = nn.Dropout(EPOCH.dropout)
        self.head = nn.Linear(length * EPOCH.width, classes)

    def forward(
        self, series: Float[torch.Tensor, "B N features"], key_mask: Bool[torch.Tensor, "B N"]
    ) -> Float[torch.Tensor, "B classes"]:
        """The logits of the classes. key_mask is True for a time step, False for padding."""
        x = self.dropout(self.embed(series) + self.positions)
        x = self.dropout(F.gelu(self.encoder(x, src_key_padding_mask=~key_mask)))
        return self.head((x * key_mask[..., None]).flatten(1))

    def take_weights(self, ours: nn.Module) -> None:
        """Load the weights of a TimeSeriesEncoder."""
        names = {"qkv.": "self_attn.in_proj_", "proj.": "self_attn.out_proj.", "up.": "linear1.", "down.": "linear2."}
        state = {}
        for name, weight in ours.state_dict().items():
            name = name.replace("blocks.", "encoder.layers.")
            for short, long in names.items():
                name = name.replace(f".{short}", f".{long}")
            state[name] = weight
        self.load_state_dict(state)
