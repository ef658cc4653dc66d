"""Head redundancy: how far apart the heads of a layer are, in what they put out and in whom they attend to."""

from itertools import combinations
from typing import NamedTuple

import torch

from torch_impl.expansion import attention, attention_weights
from torch_impl.recorder import recording
from torch_impl.training.finished_run import load_run, tested_on


class Redundancy(NamedTuple):
    """L2 distances between heads, (layers, H, H), of their outputs and of their rows of the attention map.

        outputs[l, s, t] = mean over queries i of |f^s_i - f^t_i|;   maps[l, s, t] = mean over i of |A^s_i - A^t_i|

    in layer l, over all real queries of all examples. The nearer, the more redundant.
    """

    outputs: torch.Tensor
    maps: torch.Tensor

    def summary(self):
        """Mean and standard deviation over the layers of the mean distance between two heads."""
        return {
            name: {"mean": each.mean().item(), "deviation": each.std().item() if len(each) > 1 else None}
            for name, each in ((name, between_heads(getattr(self, name))) for name in self._fields)
        }


def between_heads(distances):
    """(layers, H, H) -> the mean over pairs of heads, (layers,)."""
    pairs = list(combinations(range(distances.shape[-1]), 2))
    return torch.stack([distances[:, s, t] for s, t in pairs]).mean(0)


def redundancy(model, inputs, key_mask=None):
    """The Redundancy of a model of torch_impl.models on examples, in eval mode. ValueError for a single head."""
    with torch.no_grad(), recording(model.eval()) as calls:
        model(inputs, key_mask)
    if calls[0][1].q.shape[-3] < 2:
        raise ValueError("redundancy: expected two heads or more; got one")
    layers = [_layer(call) for _, call in calls]
    return Redundancy(*(torch.stack(each) for each in zip(*layers, strict=True)))


def of_run(folder, data_folder=None, examples=64, say=print):
    """The Redundancy of a finished run on the first examples that it was tested on. Returns it with the run."""
    run = load_run(folder)
    data = tested_on(run, data_folder, say)
    inputs, key_mask, _ = data.test.take(torch.arange(min(examples, len(data.test))))
    return redundancy(run.model, run.recipe.prepare(inputs, data.mean, data.deviation), key_mask), run


@torch.no_grad()
def _layer(call):
    primal, q, k, v, key_mask, *_ = call
    valid = torch.ones_like(q[:, 0, :, 0], dtype=torch.bool) if key_mask is None else key_mask
    outputs = attention(primal, q, k, v, key_mask)
    maps = attention_weights(primal, q, k, key_mask)
    return _distances(outputs, valid), _distances(maps, valid)


def _distances(x, valid):
    """(B, H, M, F) -> (H, H), over the real of all queries."""
    x = x.transpose(1, 2)[valid]
    return torch.stack([(x - x[:, s : s + 1]).norm(dim=-1).mean(0) for s in range(x.shape[1])])
