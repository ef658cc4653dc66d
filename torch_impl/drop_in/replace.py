"""Attention of any primal in models that exist: Hugging Face's, timm's and torch's own."""

from torch import nn

from primal_dual.primal import catalog
from torch_impl.drop_in.hugging_face import register
from torch_impl.drop_in.multihead import MultiheadAttention
from torch_impl.drop_in.timm import TimmAttention, timm_attention


def replace_attention(model, primal):
    """Give every attention of `model` this primal, in place, with the same parameters -> the model.

    model: a Hugging Face model, or one with nn.MultiheadAttention (as in nn.TransformerEncoder) or timm's Attention
    inside. primal: a catalog name, a Primal, or Heads. torch's inference fast path and its nested tensors, which would
    run softmax instead, are off for what is replaced. Raises ValueError, and changes nothing, where nothing or not
    everything can be replaced.
    """
    new = {child: _replacement(child, primal) for child in model.modules() if child is not model}
    new = {child: replacement for child, replacement in new.items() if replacement is not None}
    dispatches = getattr(model, "_supports_attention_backend", False) and hasattr(model, "set_attn_implementation")
    if not new and not dispatches:
        raise ValueError(
            "replace_attention: expected a model with nn.MultiheadAttention or timm's Attention inside, or one of"
            f" Hugging Face's that takes attention functions; got {type(model).__name__}, which is or has none"
        )
    if dispatches:
        if isinstance(primal, str):
            _ = catalog[primal]
        known = (
            f"attention_{primal}" if isinstance(primal, str) else _names.setdefault(primal, f"attention_{len(_names)}")
        )
        register(known, primal)
        model.set_attn_implementation(known)
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child in new:
                setattr(module, name, new[child])
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    return model


_names = {}  # of primals that Hugging Face models were given


def _replacement(module, primal):
    """The module that takes its place, or None where it is no attention. It has the same parameters and mode."""
    if isinstance(module, nn.MultiheadAttention):
        new = MultiheadAttention(
            module.embed_dim,
            module.num_heads,
            module.dropout,
            module.in_proj_bias is not None,
            module.bias_k is not None,
            module.add_zero_attn,
            module.kdim,
            module.vdim,
            module.batch_first,
            device="meta",
            primal=primal,
        )
    elif isinstance(module, TimmAttention) or (
        type(module).__name__ == "Attention" and type(module).__module__.startswith("timm.")
    ):
        width = module.qkv.out_features // 3
        new = timm_attention(primal)(module.qkv.in_features, module.num_heads, width // module.num_heads, device="meta")
    else:
        return None
    new._parameters.update({name: p for name, p in module._parameters.items() if name in new._parameters})
    new._modules.update({name: each for name, each in module._modules.items() if name in new._modules})
    new.training = module.training
    return new
