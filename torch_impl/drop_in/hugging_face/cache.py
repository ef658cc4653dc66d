"""Cached keys in Hugging Face's models: the last query stands at the last key, and each knows what it sees."""

from dataclasses import replace
from typing import Any

import torch

from primal_dual.primal import Heads, Primal, members_of
from primal_dual.supports import Causal, Everything, Strided, Window
from primal_dual.transforms import split_convolutions
from primal_dual.types import Bool
from torch_impl.registry import torch_version

RELATIVE = (Everything, Causal, Window, Strided)  # supports that compare positions, wherever these begin


def convolves(members: Any) -> bool:
    """Whether a query needs its neighbours."""
    return any(split_convolutions(member.transform)[0] for member in members)


def pools(members: Any) -> bool:
    """Whether keys are averaged, by their positions."""
    return any(member.scale > 1 for member in members)


def needs_positions(members: Any) -> bool:
    """Whether what a query sees depends on its position."""
    return any(not isinstance(member.support, Everything) for member in members)


def crosses(configuration: Any) -> bool:
    """Whether a decoder of this configuration attends to an encoder."""
    return any(getattr(configuration, name, False) for name in ("is_encoder_decoder", "add_cross_attention"))


def moves_with_padding(members: Any) -> bool:
    """Whether another result follows if all tokens move by one: pools, grids, and supports that are not relative."""
    grids = (part.width for member in members for part in split_convolutions(member.transform)[0])
    return pools(members) or any(grids) or any(not isinstance(member.support, RELATIVE) for member in members)


def check_generation(primal: str | Primal | Heads, configuration: Any) -> None:
    """ValueError for a primal that cannot generate with a cache of keys, in a model of this configuration."""
    members, text = members_of(primal), configuration.get_text_config(decoder=True)
    slides = any(getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size"))
    if crosses(configuration) and needs_positions(members):
        refuse_cache(primal, "a cached query does not know its position in cross-attention")
    check_cache(primal, members, is_table=slides)


def check_cache(primal: str | Primal | Heads, members: Any, is_table: bool) -> None:
    """ValueError for a primal that cannot read cached keys: at all, or where a table of a mask hides keys that left."""
    if convolves(members):
        refuse_cache(primal, "a Convolution needs all queries")
    if not all(isinstance(member.support, RELATIVE) for member in members):
        refuse_cache(primal, "its support is that of one sequence")
    if is_table and pools(members):
        refuse_cache(primal, "the model's own mask hides where the keys to be averaged begin")


def refuse_cache(primal: str | Primal | Heads, reason: str) -> None:
    """Raise the ValueError."""
    raise ValueError(f"attention {primal}: expected use_cache=False, since {reason}")


def seen_by_last_query(members: Heads, N: int, device: torch.device) -> Bool[torch.Tensor, "H 1 N"] | None:
    """True for the keys that the query at the last of N keys sees, by the supports of heads; None for all of them.

    Examples
    --------
    >>> from primal_dual import catalog
    >>> seen_by_last_query(Heads(catalog["strided"]), 5, torch.device("cpu")).tolist()
    [[[False, True, False, False, True]]]
    """
    if all(isinstance(member.support, Everything | Causal) for member in members):
        return None
    i, j = torch.tensor([[N - 1]], device=device), torch.arange(N, device=device)
    rows = [torch_version(member.support)(member.support, i, j).expand(1, N) for member in members]
    return torch.stack(rows)


def without_supports(members: Heads) -> Heads:
    """The same heads, of which each query sees all that the masks of the call show."""
    return Heads(*(replace(member, support=Everything()) for member in members))
