"""The PyTorch mirror of primal_dual: the same primals as fast, trainable attention (arXiv 2406.13781)."""

from torch_impl import kernels, supports, transforms
from torch_impl.attention import attention, attention_weights
from torch_impl.registry import register

__all__ = ["attention", "attention_weights", "kernels", "register", "supports", "transforms"]
