"""The PyTorch mirror of primal_dual: the same primals as fast, trainable attention (arXiv 2406.13781)."""

from importlib import import_module
from typing import Any

from torch_impl import drop_in, kernels, supports, transforms
from torch_impl.certificate import certify_module
from torch_impl.drop_in.multihead import MultiheadAttention
from torch_impl.expansion import attention, attention_weights
from torch_impl.layers import encoder, self_attention
from torch_impl.registry import register

__all__ = [
    "AttentionClassifier",
    "MultiheadAttention",
    "attention",
    "attention_weights",
    "certify_module",
    "drop_in",
    "encoder",
    "kernels",
    "load_pretrained",
    "pretrained",
    "register",
    "self_attention",
    "supports",
    "transforms",
]

LAZY = {
    "AttentionClassifier": "torch_impl.training.estimator",
    "load_pretrained": "torch_impl.training.trained.finished_run",
    "pretrained": "torch_impl.training.trained.pretrained_models",
}


def __getattr__(name: str) -> Any:
    """What needs more than torch is loaded when it is used."""
    if name not in LAZY:
        raise AttributeError(f"module 'torch_impl' has no attribute {name!r}")
    return getattr(import_module(LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
