"""Head redundancy: how far apart the heads of a layer are, in their outputs and in their attention maps."""

from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from primal_dual.types import Bool, Float, Num
from torch_impl.data.messages import Say
from torch_impl.expansion import attention, attention_weights
from torch_impl.recorder import Call, recording
from torch_impl.training.runs.run_folder import results_below
from torch_impl.training.trained.finished_run import Run, load_data_of_run, load_run


class Redundancy(NamedTuple):
    """L2 distances between the heads s and t of each layer l. Heads near to each other are redundant.

        outputs[l, s, t] = mean over queries i of |f^s_i - f^t_i|;   maps[l, s, t] = mean over i of |A^s_i - A^t_i|
        directions[l, s, t] = mean over i of |f^s_i / |f^s_i| - f^t_i / |f^t_i||

    with f^s the output of head s and A^s its attention map, over the queries of all examples that are not padding. A
    distance of outputs grows with their length; one of directions is at most 2, and about sqrt(2) for unrelated ones.
    Both depend on the coordinates of the values: copies of a head whose values are turned, and turned back by the
    output projection, are far apart. The distance of maps does not.

        entropies[l, s] = mean over i of -sum_j A^s_ij log A^s_ij / log N

    with N the number of keys that are not padding, is 1 for an average of all of them, and 0 for one key. (Where a
    query sees fewer keys, as under a causal support, an average of those is below 1.)

    Parameters
    ----------
    outputs, directions, maps : tensors, (layers, heads, heads)
        The distances.
    entropies : tensor, (layers, heads)
        The entropies of the weights, as fractions of the largest.
    """

    outputs: Float[torch.Tensor, "layers H H"]
    directions: Float[torch.Tensor, "layers H H"]
    maps: Float[torch.Tensor, "layers H H"]
    entropies: Float[torch.Tensor, "layers H"]

    def means(self) -> dict[str, float]:
        """Each distance, averaged over the pairs of different heads and over the layers; and the mean entropy.

        Examples
        --------
        >>> distances = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 3.0], [3.0, 0.0]]])
        >>> Redundancy(distances, distances, 2 * distances, torch.tensor([[0.5, 1.0]])).means()
        {'outputs': 2.0, 'directions': 2.0, 'maps': 4.0, 'entropies': 0.75}
        """
        distances = {name: between_heads(getattr(self, name)).mean().item() for name in DISTANCES}
        return distances | {"entropies": self.entropies.mean().item()}


DISTANCES = ("outputs", "directions", "maps")
EXAMPLES = 64  # of a run, at most


def between_heads(distances: Float[torch.Tensor, "layers H H"]) -> Float[torch.Tensor, " layers"]:
    """The mean distance over the pairs of different heads.

    Examples
    --------
    >>> between_heads(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))
    tensor([1.])
    """
    pairs = list(combinations(range(distances.shape[-1]), 2))
    return torch.stack([distances[:, s, t] for s, t in pairs]).mean(0)


def redundancy(
    model: torch.nn.Module, inputs: Num[torch.Tensor, "B ..."], key_mask: Bool[torch.Tensor, "B N"] | None = None
) -> Redundancy:
    """The redundancy of the heads of a model.

    Parameters
    ----------
    model : nn.Module
        One with attention of this package, called with inputs and a padding mask, as those of `torch_impl.models` are.
        It is put into eval mode.
    inputs : tensor, (B, ...)
        Examples.
    key_mask : tensor of booleans, (B, N), optional
        Their padding mask, True for a token.

    Raises
    ------
    ValueError
        For a model with one head, and for one without the attention of this package.

    Examples
    --------
    >>> from torch_impl.models.encoders import TimeSeriesEncoder
    >>> model = TimeSeriesEncoder(3, 11, 5, "bn", layers=2, width=8, num_heads=4)
    >>> redundancy(model, torch.randn(2, 11, 3)).maps.shape
    torch.Size([2, 4, 4])
    """
    with torch.no_grad(), recording(model.eval()) as calls:
        model(inputs, key_mask)
    if not calls:
        raise ValueError(f"redundancy: expected a model with attention of torch_impl; got {type(model).__name__}")
    if calls[0][1].q.shape[-3] < 2:
        raise ValueError("redundancy: expected two heads or more; got one")
    return Redundancy(*map(torch.stack, zip(*(_measure(call) for _, call in calls), strict=True)))


def of_run(folder: Path | str, data_folder: Path | str | None = None, say: Say = print) -> tuple[Redundancy, Run]:
    """The redundancy of the heads of a finished run, on 64 examples that it was tested on, evenly spaced.

    (The first ones would be of a class or two: files are often sorted.)

    Parameters
    ----------
    folder : path
        The folder of the run.
    data_folder : path, optional
        The folder of data sets, as in training.
    say : callable
        Is called with messages about the progress of loading.

    Returns
    -------
    redundancy : Redundancy
        The distances.
    run : Run
        The run.

    Raises
    ------
    ValueError
        For what `load_run` and `redundancy` refuse.
    """
    run = load_run(folder)
    data = load_data_of_run(run, data_folder, say)
    count = min(EXAMPLES, len(data.test))
    inputs, key_mask, _ = data.test.take(torch.arange(count) * len(data.test) // count)
    return redundancy(run.model, run.prepare(inputs), key_mask), run


def runs_below(folder: Path) -> list[Path]:
    """The finished runs below a folder; the folder itself if it is a run, or if there is none."""
    return [file.parent for file in results_below(folder)] or [folder]


@torch.no_grad()
def _measure(call: Call) -> list[Float[torch.Tensor, "..."]]:
    """The distances of outputs, of directions and of maps, (H, H), and the entropies, (H,), in one layer."""
    arguments = call._asdict()
    outputs = attention(**arguments)
    del arguments["v"]
    maps = attention_weights(**arguments)
    key_mask = call.query_mask if call.key_mask is None else call.key_mask  # timm's masks of keys are tables
    queries, keys = (
        torch.ones_like(x[:, 0, :, 0], dtype=torch.bool) if mask is None else mask
        for x, mask in ((call.q, call.query_mask), (call.k, key_mask))
    )
    distances = [_distances(each, queries) for each in (outputs, F.normalize(outputs, dim=-1), maps)]
    largest = keys.sum(-1).clamp_min(2).to(maps).log()  # (B,)
    entropies = torch.special.entr(maps).sum(-1) / largest[:, None, None]  # (B, H, M)
    return [*distances, entropies.transpose(1, 2)[queries].mean(0)]


def _distances(x: Float[torch.Tensor, "B H M F"], valid: Bool[torch.Tensor, "B M"]) -> Float[torch.Tensor, "H H"]:
    """The mean distance of two heads over the queries that are not padding."""
    rows = x.transpose(1, 2)[valid]  # (queries, H, F)
    return torch.stack([(rows - rows[:, s : s + 1]).norm(dim=-1).mean(0) for s in range(rows.shape[1])])
