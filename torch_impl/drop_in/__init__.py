"""Attention of any primal in the place of torch's own, timm's and Hugging Face's."""

from torch_impl.drop_in.hugging_face.registration import register, register_transformers
from torch_impl.drop_in.multihead import MultiheadAttention
from torch_impl.drop_in.replace import replace_attention
from torch_impl.drop_in.timm import timm_attention

__all__ = ["MultiheadAttention", "register", "register_transformers", "replace_attention", "timm_attention"]
