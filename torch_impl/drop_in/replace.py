"""Attention of any primal in models that exist: Hugging Face's, timm's and torch's own."""

import inspect
import re
from typing import Any, TypeVar

from torch import nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from primal_dual.primal import Heads, Primal, heads
from torch_impl.drop_in.hugging_face.names import name_of
from torch_impl.drop_in.hugging_face.registration import register, why_not
from torch_impl.drop_in.multihead import MultiheadAttention, keep_forward
from torch_impl.drop_in.timm import TimmAttention, timm_attention

Model = TypeVar("Model", bound=nn.Module)
OTHER_KINDS = "Channel|Spatial|Deformable|VQVAE"  # of what is called an attention
TIMMS_MODULES = ("timm.layers.attention", "timm.models.vision_transformer")


def replace_attention(model: Model, primal: str | Primal | Heads) -> Model:
    """Give every attention of a model this primal, in place, with the same parameters.

    A learned beta and learned taps give way to the primal's own. Hugging Face models that were built from one
    configuration object share their attention. torch's fast path for inference and its nested tensors, which would run
    softmax instead, are off for what is replaced. See tutorial 8.

    Parameters
    ----------
    model : nn.Module
        A Hugging Face model, or one with nn.MultiheadAttention (as in nn.TransformerEncoder) or timm's Attention in it.
    primal : str, Primal or Heads
        A str is a catalog name; with "sh" it gives the heads different scales, see `primal_dual.heads`.

    Returns
    -------
    nn.Module
        The model itself.

    Raises
    ------
    ValueError
        If there is nothing that can be replaced, or an attention that cannot, as far as the names of classes tell; then
        nothing has changed.

    Examples
    --------
    >>> layer = replace_attention(nn.TransformerEncoderLayer(16, 4), "bn")
    >>> type(layer.self_attn)
    <class 'torch_impl.drop_in.multihead.MultiheadAttention'>
    """
    candidates = {child: _like(child, primal) for child in model.modules() if child is not model}
    new = {child: replacement for child, replacement in candidates.items() if replacement is not None}
    hugging_face = [module for module in model.modules() if hasattr(module, "set_attn_implementation")]
    if not new and not (hugging_face and any("Attention" in type(module).__name__ for module in model.modules())):
        raise ValueError(
            "replace_attention: expected a model with nn.MultiheadAttention or timm's Attention inside, or one of"
            f" Hugging Face's that takes attention functions; got {type(model).__name__}, which is or has none"
        )
    _check_hugging_faces(hugging_face)
    _refuse_others(model, new)
    _check_number(model, primal)
    for each in hugging_face:
        each.set_attn_implementation(register(name_of(primal), primal))  # type: ignore[operator]
    for theirs, ours in new.items():
        _adopt(ours, theirs)
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child in new:
                setattr(module, name, new[child])
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    return model


def _check_hugging_faces(models: list[nn.Module]) -> None:
    """ValueError for a Hugging Face model that calls no attention function, or has no primal."""
    for model in models:
        if why_not(model):
            expected = "models that take attention functions"
            raise ValueError(f"replace_attention: expected {expected}; got {type(model).__name__}, {why_not(model)}")
        if any(hasattr(module, "relative_attention_bias") for module in model.modules()):  # T5 and its relatives
            expected = "a model without a relative position bias, which has no primal"
            raise ValueError(f"replace_attention: expected {expected}; got {type(model).__name__}")


def _refuse_others(model: nn.Module, new: dict[nn.Module, nn.Module]) -> None:
    """ValueError for an attention that would stay: it has none inside, is not replaced, and calls no function."""
    for module in filter(_is_attention, model.modules()):
        has_one_inside = any(_is_attention(each) for each in module.modules() if each is not module)
        if not (has_one_inside or module in new or _calls_attention_function(module)):
            expected = "no attention but torch's, timm's, and those that call Hugging Face's attention functions"
            mend = "call replace_attention on the parts of the model that are to change"
            raise ValueError(f"replace_attention: expected {expected}; got {type(module).__name__}: {mend}")


def _check_number(model: nn.Module, primal: str | Primal | Heads) -> None:
    """ValueError for Heads of another number than an attention of Hugging Face's has, as far as it tells."""
    for module in filter(_is_attention, model.modules()):
        if _calls_attention_function(module):
            places = (module, getattr(module, "config", None))
            numbers = [getattr(place, name, None) for place in places for name in ("num_heads", "num_attention_heads")]
            count = next((number for number in numbers if isinstance(number, int)), None)
            if count is not None:
                heads(primal, count)


def _is_attention(module: nn.Module) -> bool:
    """Whether this is an attention of tokens to tokens, by the name of its class."""
    name = type_before_parametrizations(module).__name__
    return bool(re.search(r"(Attention|Attn)(Block|Pool\w*)?$", name)) and not re.search(OTHER_KINDS, name)


def _calls_attention_function(module: nn.Module) -> bool:
    """Whether this module of Hugging Face's calls the attention function that its configuration names."""
    return "ALL_ATTENTION_FUNCTIONS" in inspect.unwrap(type(module).forward).__code__.co_names


def _like(module: nn.Module, primal: str | Primal | Heads) -> nn.Module | None:
    """A module of ours with another's arguments, whose parameters are still to come; None if that is no attention."""
    original: Any = type_before_parametrizations(module)
    libraries = next((each for each in original.__mro__ if _is_known(each)), None)
    if libraries is None:
        return None
    if "forward" in vars(module) or original.forward is not libraries.forward:
        expected = f"{libraries.__name__} with its own forward"
        raise ValueError(f"replace_attention: expected {expected}; got {original.__name__}, whose forward is another")
    if isinstance(module, nn.MultiheadAttention):
        return _like_torchs(module, primal)
    return _like_timms(module, primal)


def _is_known(kind: type) -> bool:
    """Whether this is torch's attention, timm's, which need not be installed, or ours."""
    if kind.__name__ == "Attention" and kind.__module__ in TIMMS_MODULES:
        return True
    return kind in (nn.MultiheadAttention, MultiheadAttention, TimmAttention)


def _adopt(new: nn.Module, module: nn.Module) -> None:
    """Have a new module take over all that another holds: parameters, pruned or not, buffers, hooks, modules, mode."""
    own = ("primal", "beta", "taps", "heads")
    parameters = {name: p for name, p in module._parameters.items() if name not in own}
    state = {name: each for name, each in vars(module).items() if name not in own}
    vars(new).update(state, _parameters=parameters, _modules={**new._modules, **module._modules})
    if isinstance(new, MultiheadAttention) and keep_forward not in new._forward_pre_hooks.values():
        new.register_forward_pre_hook(keep_forward)
    if is_parametrized(module):  # parametrized weights are properties of a class that torch made for this module
        names = {name: each for name, each in vars(type(module)).items() if name not in ("__dict__", "__weakref__")}
        new.__class__ = type(type(module).__name__, (type(new),), names)


def _like_torchs(module: nn.MultiheadAttention, primal: str | Primal | Heads) -> MultiheadAttention:
    return MultiheadAttention(
        module.embed_dim,
        module.num_heads,
        dropout=module.dropout,
        bias=module.in_proj_bias is not None,
        add_bias_kv=module.bias_k is not None,
        add_zero_attn=module.add_zero_attn,
        kdim=module.kdim,
        vdim=module.vdim,
        batch_first=module.batch_first,
        device="meta",
        primal=primal,
    )


def _like_timms(module, primal: str | Primal | Heads) -> TimmAttention:
    width = module.qkv.out_features // 3
    return timm_attention(primal)(module.qkv.in_features, module.num_heads, width // module.num_heads, device="meta")
