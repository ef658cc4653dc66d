"""The PyTorch mirror of primal_dual: the same primals as fast, trainable attention (arXiv 2406.13781)."""

from torch_impl import drop_in, kernels, supports, transforms
from torch_impl.certificate import certify_module
from torch_impl.drop_in.multihead import MultiheadAttention
from torch_impl.expansion import attention, attention_weights
from torch_impl.layers import encoder, self_attention
from torch_impl.registry import register

__all__ = [
    "MultiheadAttention",
    "attention",
    "attention_weights",
    "certify_module",
    "drop_in",
    "encoder",
    "kernels",
    "register",
    "self_attention",
    "supports",
    "transforms",
]
