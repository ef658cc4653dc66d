"""Attention of any primal in models that exist: Hugging Face's, timm's and torch's own."""

from typing import TypeVar

from torch import nn

from primal_dual.primal import Heads, Primal
from torch_impl.drop_in.hugging_face import dispatches, register
from torch_impl.drop_in.hugging_face_names import name_of
from torch_impl.drop_in.multihead import MultiheadAttention
from torch_impl.drop_in.timm import TimmAttention, timm_attention

Model = TypeVar("Model", bound=nn.Module)


def replace_attention(model: Model, primal: str | Primal | Heads) -> Model:
    """Give every attention of a model this primal, in place, with the same parameters.

    torch's fast path for inference and its nested tensors, which would run softmax instead, are off for what is
    replaced. See tutorial 8.

    Parameters
    ----------
    model : nn.Module
        A Hugging Face model, or one with nn.MultiheadAttention (as in nn.TransformerEncoder) or timm's Attention in it.
    primal : str, Primal or Heads
        A str is a catalog name.

    Returns
    -------
    nn.Module
        The model itself.

    Raises
    ------
    ValueError
        If there is nothing that can be replaced, or something that cannot; then nothing has changed.

    Examples
    --------
    >>> layer = replace_attention(nn.TransformerEncoderLayer(16, 4), "bn")
    >>> type(layer.self_attn)
    <class 'torch_impl.drop_in.multihead.MultiheadAttention'>
    """
    candidates = {child: _replacement(child, primal) for child in model.modules() if child is not model}
    new = {child: replacement for child, replacement in candidates.items() if replacement is not None}
    hugging_face = [module for module in model.modules() if hasattr(module, "set_attn_implementation")]
    if not new and not (hugging_face and any("Attention" in type(module).__name__ for module in model.modules())):
        raise ValueError(
            "replace_attention: expected a model with nn.MultiheadAttention or timm's Attention inside, or one of"
            f" Hugging Face's that takes attention functions; got {type(model).__name__}, which is or has none"
        )
    _set_attention_functions(hugging_face, primal)
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child in new:
                setattr(module, name, new[child])
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    return model


def _set_attention_functions(models: list[nn.Module], primal: str | Primal | Heads) -> None:
    """Have Hugging Face models call our attention function. ValueError for one that calls none, and an unknown name."""
    for model in models:
        if not dispatches(model):
            expected = "models that take attention functions"
            raise ValueError(f"replace_attention: expected {expected}; got {type(model).__name__}, which takes none")
    for model in models:
        model.set_attn_implementation(register(name_of(primal), primal))  # type: ignore[operator]


def _replacement(module: nn.Module, primal: str | Primal | Heads) -> nn.Module | None:
    """The module that takes the place of another, with its parameters and mode; None if that is no attention."""
    if isinstance(module, nn.MultiheadAttention):
        new: nn.Module = _like_torchs(module, primal)
    elif isinstance(module, TimmAttention) or _is_timms(module):
        new = _like_timms(module, primal)
    else:
        return None
    new._parameters.update({name: p for name, p in module._parameters.items() if name in new._parameters})
    new._modules.update({name: each for name, each in module._modules.items() if name in new._modules})
    new.training = module.training
    return new


def _like_torchs(module: nn.MultiheadAttention, primal: str | Primal | Heads) -> MultiheadAttention:
    """The same arguments; the parameters are still to be filled in."""
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
    """The same arguments; the parameters are still to be filled in."""
    width = module.qkv.out_features // 3
    return timm_attention(primal)(module.qkv.in_features, module.num_heads, width // module.num_heads, device="meta")


def _is_timms(module: nn.Module) -> bool:
    """Whether this is timm's Attention, which need not be installed."""
    return type(module).__name__ == "Attention" and type(module).__module__.startswith("timm.")
