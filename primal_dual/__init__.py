"""Self-attention as the support vector expansion of a support vector regression (arXiv 2406.13781)."""

from primal_dual.attention import attention, attention_weights
from primal_dual.kernels import EluPlusOne, Exponential, Gaussian, Polynomial, RandomFeatures, Taylor
from primal_dual.primal import Heads, Primal, catalog, heads
from primal_dual.supports import Causal, Everything, Mask, Strided, Window
from primal_dual.transforms import BatchNorm, Convolution, Identity, UnitNorm
