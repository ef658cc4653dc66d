"""A problem: a support vector expansion that is still to be evaluated. What evaluates it turns it into simpler ones."""

from dataclasses import dataclass
from math import prod

import torch

from primal_dual.kernels import Exponential
from primal_dual.protocols import Kernel
from primal_dual.types import Bool, Float
from torch_impl.fast.visibility import Visibility
from torch_impl.transforms import TorchTransform


@dataclass(frozen=True, eq=False)
class Problem:
    """sum_j v_j <Phi(T q_i), Phi(T k_j)> / h(q_i), over the keys j that query i sees.

    Attributes
    ----------
    kernel, normalizer : Kernel and str
        Those of the primal.
    scale : int
        How many keys are still to be averaged to one training point.
    transforms : tuple
        T, as far as it is not applied yet. Convolutions are applied already.
    q, k, v : tensors
        Queries, keys and values. v has the dtype of the result; q and k may have a finer one. Autocast is off.
    visibility : Visibility
        Which query sees which key.
    dropout_p : float
        The probability that a weight is dropped.
    """

    kernel: Kernel
    normalizer: str
    scale: int
    transforms: tuple[TorchTransform, ...]
    q: Float[torch.Tensor, "... M D"]
    k: Float[torch.Tensor, "... N D"]
    v: Float[torch.Tensor, "... N Dv"]
    visibility: Visibility
    dropout_p: float

    @property
    def is_softmax(self) -> bool:
        """Whether the weights are a softmax, so that terms of the logits which are the same for all keys cancel."""
        return isinstance(self.kernel, Exponential) and self.normalizer == "sum"

    @property
    def queries(self) -> int:
        """M, the number of queries."""
        return self.q.shape[-2]

    @property
    def keys(self) -> int:
        """N, the number of keys."""
        return self.k.shape[-2]

    @property
    def visible(self) -> Bool[torch.Tensor, "... #M N"] | None:
        """True where a query sees a key; None if all see all."""
        return self.visibility.visible(slice(0, self.queries), slice(0, self.keys), self.q.device)

    @property
    def precise(self) -> torch.dtype:
        """What weights are computed in: float32, or the dtype of v if that is finer."""
        return torch.promote_types(self.v.dtype, torch.float32)

    @property
    def batch(self) -> int:
        """How many attentions there are, over all leading axes."""
        return prod(torch.broadcast_shapes(self.q.shape[:-2], self.k.shape[:-2], self.v.shape[:-2]))
