"""Self-attention as the support vector expansion of a support vector regression (arXiv 2406.13781)."""

from importlib import import_module

from primal_dual.certificates.certificate import Certificate, certify
from primal_dual.expansion import attention, attention_weights
from primal_dual.kernels import EluPlusOne, Exponential, Gaussian, Polynomial, RandomFeatures, Taylor
from primal_dual.layers import encoder, encoder_params, self_attention
from primal_dual.model_selection.leaving_out import leave_one_out
from primal_dual.model_selection.regularisation_path import RegularisationPath, svr_path
from primal_dual.primal import Heads, Primal, catalog, heads, register_attention
from primal_dual.supports import Causal, Everything, Mask, Strided, Window
from primal_dual.svr.solutions import ConvergenceWarning, DualSolution, PrimalSolution
from primal_dual.svr.solve import solve_dual, solve_primal
from primal_dual.transforms import BatchNorm, Convolution, Identity, UnitNorm

__all__ = [
    "BatchNorm",
    "Causal",
    "Certificate",
    "ConvergenceWarning",
    "Convolution",
    "DualSolution",
    "EluPlusOne",
    "Everything",
    "Exponential",
    "Gaussian",
    "Heads",
    "Identity",
    "Mask",
    "Polynomial",
    "Primal",
    "PrimalSolution",
    "RandomFeatures",
    "RegularisationPath",
    "SVRAttention",
    "Strided",
    "Taylor",
    "UnitNorm",
    "Window",
    "attention",
    "attention_weights",
    "catalog",
    "certify",
    "encoder",
    "encoder_params",
    "heads",
    "leave_one_out",
    "register_attention",
    "self_attention",
    "solve_dual",
    "solve_primal",
    "svr_path",
]


def __getattr__(name):
    if name == "SVRAttention":  # scikit-learn loads with it alone
        return import_module("primal_dual.model_selection.estimator").SVRAttention
    raise AttributeError(f"module 'primal_dual' has no attribute {name!r}")


def __dir__():
    return __all__
