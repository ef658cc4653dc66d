"""Attention of any primal in Hugging Face's transformers, by a name.

The library writes no attn_implementation into files, so that a saved model would come back with softmax; it ignores the
setting in models that take no attention functions; and it starts to generate what our attention cannot finish. So a few
of its methods are wrapped, and do as before wherever the attention is not ours.
"""

import inspect
import re
import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from primal_dual.primal import Heads, Primal, catalog, heads
from torch_impl.drop_in.hugging_face.attention import attention_function
from torch_impl.drop_in.hugging_face.cache import check_generation
from torch_impl.drop_in.hugging_face.masks import mask_function
from torch_impl.drop_in.hugging_face.names import (
    name_in_files,
    name_of,
    names_in_files,
    our_name,
    our_names,
    primals,
    registered_name,
)


def register_transformers() -> None:
    """Register every catalog name with Hugging Face transformers, as attn_implementation="attention_<name>".

    The model's padding, its own masks and module.is_causal intersect with the primal's support. A number below -88 in a
    mask hides a key, as models mean it. Models generate with a cache of keys; where a primal cannot, the error says so
    before the first token. A model that is saved comes back with its attention, once this was called.
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
        A str is a catalog name; with "sh" it gives the heads different scales, see `primal_dual.heads`.

    Returns
    -------
    str
        The name.

    Raises
    ------
    ValueError
        For an unknown primal, and for a name that is the library's own, such as "sdpa".
    """
    counts = [len(primal)] if isinstance(primal, Heads) else range(1, 33)
    layers = {count: heads(primal, count) for count in counts}  # not all compilers can build them inside a graph
    from transformers import AttentionInterface, AttentionMaskInterface, masking_utils

    if not isinstance(name, str) or not name or (name in ("eager", *AttentionInterface()) and name not in primals):
        raise ValueError(f"name: expected one that transformers does not use; got {name!r}")
    primals[name] = primal
    for each in (name, name_in_files(name)):
        AttentionInterface.register(each, partial(attention_function, primal, layers))
        AttentionMaskInterface.register(each, partial(mask_function, primal, masking_utils))
    _wrap_methods()
    return name


def why_not(model: Any) -> str:
    """Why a Hugging Face model cannot have attention functions of ours; empty if it can."""
    if not model._can_set_attn_implementation():
        return "which takes none"
    if not (model._supports_sdpa or _tells_what_is_causal(type(model))):
        return "whose causal layers do not tell them so by is_causal"
    return ""


def _tells_what_is_causal(kind: type) -> bool:
    """Whether causal modules say so by is_causal, as they must where torch's own attention is supported.

    Elsewhere some rely on the model's table alone.
    """
    code = inspect.getsource(sys.modules[kind.__module__])
    return "create_causal_mask(" not in code or re.search(r"is_causal ?= ?(True|not |config\.)", code) is not None


class _PickledName(str):
    """A name that registers its attention where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return register, (str(self), primals[self])


def _wrap_methods() -> None:
    """Wrap the methods of the library's classes that must know of our attentions, once."""
    import transformers

    library: Any = transformers
    configuration, model, generator = library.PreTrainedConfig, library.PreTrainedModel, library.GenerationMixin
    if "__getstate__" not in vars(configuration):
        configuration.__getstate__ = _state_of_configuration
        configuration.to_dict = _with_names(configuration.to_dict)
        model.get_correct_attn_implementation = _only_if_it_can(model.get_correct_attn_implementation)
        generator.generate = _after_check(generator.generate)


def _state_of_configuration(configuration: Any) -> dict[str, Any]:
    name = our_name(configuration)
    return {**vars(configuration), **({"_attn_implementation_internal": _PickledName(name)} if name else {})}


def _with_names(to_dict: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    @wraps(to_dict)
    def wrapped(configuration: Any) -> dict[str, Any]:
        names = names_in_files(configuration)
        return {**to_dict(configuration), **({"attn_implementation": names} if names else {})}

    return wrapped


def _only_if_it_can(get_correct: Callable[..., str]) -> Callable[..., str]:
    @wraps(get_correct)
    def wrapped(model: Any, requested_attention: str | None, *arguments: Any, **options: Any) -> str:
        if registered_name(requested_attention) and why_not(model):
            expected = f"a model that takes attention functions for {requested_attention}"
            raise ValueError(f"attn_implementation: expected {expected}; got {type(model).__name__}, {why_not(model)}")
        return get_correct(model, requested_attention, *arguments, **options)

    return wrapped


def _after_check(generate: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(generate)
    def wrapped(model: Any, *arguments: Any, **options: Any) -> Any:
        given = options.get("generation_config") or (arguments[1] if len(arguments) > 1 else None)
        use_cache = options.get("use_cache", (given or model.generation_config).use_cache)
        if use_cache is not False:
            for name in our_names(model.config):
                check_generation(primals[name], model.config)
        return generate(model, *arguments, **options)

    return wrapped
