"""Attention of any primal in Hugging Face's transformers: by a name, which configurations keep.

The library writes no attn_implementation into files, so that a saved model would come back with softmax. Here
configurations write ours, and after it what to call: where nobody has called it, the library's error says so. What is
pickled registers its attention where it is unpickled.
"""

import hashlib
from functools import partial, wraps
from typing import Any

from primal_dual.primal import Heads, Primal, catalog, heads
from torch_impl.drop_in.hugging_face_attention import attention_function
from torch_impl.drop_in.hugging_face_masks import mask_function

_primals: dict[str, str | Primal | Heads] = {}  # those that are registered, by their names


def register_transformers() -> None:
    """Register every catalog name with Hugging Face transformers, as attn_implementation="attention_<name>".

    The model's padding, its own masks and module.is_causal intersect with the primal's support. Keys may be cached, but
    not in a static cache, and for a Convolution not at all. A model that is saved comes back with its attention, once
    this was called.
    """
    for name in catalog:
        register(name_of(name), name)


def register(name: str, primal: str | Primal | Heads) -> str:
    """Register one primal with Hugging Face transformers, as attn_implementation=`name`.

    Parameters
    ----------
    name : str
        What a model's configuration will call it.
    primal : str, Primal or Heads
        A str is a catalog name; ValueError if it is unknown.

    Returns
    -------
    str
        The name.
    """
    counts = [len(primal)] if isinstance(primal, Heads) else range(1, 33)
    layers = {count: heads(primal, count) for count in counts}  # not all compilers can build them inside a graph
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, masking_utils

    _primals[name] = primal
    for each in (name, _name_in_files(name)):
        AttentionInterface.register(each, partial(attention_function, primal, layers))
        AttentionMaskInterface.register(each, partial(mask_function, primal, masking_utils))
    _keep_names(PreTrainedConfig)
    return name


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
    if _primals.get(name, primal) != primal:
        raise ValueError(f"primal: expected one that prints unlike any before it; got another {primal!r}")
    return name


def _name_in_files(name: str) -> str:
    """A name with what to call before a file that has it is read."""
    primal = _primals[name]
    of_catalog = isinstance(primal, str) and name == name_of(primal)
    call = "register_transformers()" if of_catalog else f"register({name!r}, {primal!r})"
    return f"{name}, after torch_impl.drop_in.{call}"


class _PickledName(str):
    """A name that registers its attention where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return register, (str(self), _primals[self])


def _keep_names(configuration: Any) -> None:
    """Have a class of configurations keep our names in what it writes to files and in what it pickles."""
    if "__getstate__" in vars(configuration):
        return
    to_dict = configuration.to_dict

    @wraps(to_dict)
    def to_dict_with_name(self: Any) -> dict[str, Any]:
        names = _names_in_files(self)
        return {**to_dict(self), **({"attn_implementation": names} if names else {})}

    def getstate_with_name(self: Any) -> dict[str, Any]:
        name = _our_name(self)
        return {**vars(self), **({"_attn_implementation_internal": _PickledName(name)} if name else {})}

    configuration.to_dict = to_dict_with_name
    configuration.__getstate__ = getstate_with_name


def _names_in_files(configuration: Any) -> str | dict[str, Any] | None:
    """Our names in a configuration and in those within it, as its attn_implementation takes them; None without any."""
    name = _our_name(configuration)
    own = _name_in_files(name) if name else None
    parts = {key: getattr(configuration, key, None) for key in configuration.sub_configs}
    names = {key: _names_in_files(part) for key, part in parts.items() if part is not None}
    return own if all(each == own for each in names.values()) else {"": own, **names}


def _our_name(configuration: Any) -> str | None:
    """The name under which a configuration's attention is registered, if that is one of ours."""
    name = str(configuration._attn_implementation).partition(", after ")[0]
    return name if name in _primals else None
