"""The names of our attentions in Hugging Face's configurations."""

import hashlib
from typing import Any

from primal_dual.primal import Heads, Primal

primals: dict[str, str | Primal | Heads] = {}  # those that are registered, by their names


def name_of(primal: str | Primal | Heads) -> str:
    """The name of a primal, the same in every process. ValueError for one that prints like another.

    Examples
    --------
    >>> name_of("bn"), name_of(Primal(scale=2)) == name_of(Primal(scale=3))
    ('attention_bn', False)
    """
    if isinstance(primal, str):
        return f"attention_{primal}"
    name = f"attention_{hashlib.sha256(repr(primal).encode()).hexdigest()[:12]}"
    if primals.get(name, primal) != primal:
        raise ValueError(f"primal: expected one that prints unlike any before it; got another {primal!r}")
    return name


def name_in_files(name: str) -> str:
    """A name with what to call before a file that has it is read: the library's error says so if nobody did.

    Examples
    --------
    >>> primals["attention_bn"] = "bn"
    >>> name_in_files("attention_bn")
    'attention_bn, after torch_impl.drop_in.register_transformers()'
    """
    primal = primals[name]
    of_catalog = isinstance(primal, str) and name == name_of(primal)
    call = "register_transformers()" if of_catalog else f"register({name!r}, {primal!r})"
    return f"{name}, after torch_impl.drop_in.{call}"


def registered_name(attn_implementation: object) -> str | None:
    """The name that an attn_implementation begins with, as `name_in_files` writes it, if that is one of ours."""
    name = str(attn_implementation).partition(", after ")[0]
    return name if name in primals else None


def our_name(configuration: Any) -> str | None:
    """The name under which a configuration's attention is registered, if that is one of ours."""
    return registered_name(configuration._attn_implementation)


def our_names(configuration: Any) -> list[str]:
    """Our names in a configuration and in those within it."""
    within = [name for part in _within(configuration).values() for name in our_names(part)]
    name = our_name(configuration)
    return [name, *within] if name else within


def names_in_files(configuration: Any) -> str | dict[str, Any] | None:
    """Our names in a configuration and in those within it, as its attn_implementation takes them; None without any."""
    name = our_name(configuration)
    own = name_in_files(name) if name else None
    names = {key: names_in_files(part) for key, part in _within(configuration).items()}
    return own if all(each == own for each in names.values()) else {"": own, **names}


def _within(configuration: Any) -> dict[str, Any]:
    """The configurations within another, such as those of its text and its vision model, by their keys."""
    parts = {key: getattr(configuration, key, None) for key in configuration.sub_configs}
    return {key: part for key, part in parts.items() if part is not None}
