"""The ways to evaluate a support vector expansion: `expansion` makes the problem simpler, then chooses.

What all queries have in common is computed once: pools, and transforms of shared keys. Then, by file:

- softmax.py: an exponential kernel ends in torch's fused scaled_dot_product_attention, Attention-BN included
- sparse.py: a strided support splits into smaller problems, and a window into one for each block of queries
- linear.py: positive features make time and memory grow with N and not with N^2
- blockwise.py: all else follows the definition, a block of queries at a time

`weights` is the same for the matrix of weights, whose size is M N in any case.
"""

from dataclasses import replace

import torch

from primal_dual.protocols import PositiveFeatures
from primal_dual.transforms import BatchNorm, UnitNorm
from primal_dual.types import Float
from torch_impl.blocks import join_blocks
from torch_impl.fast import blockwise, softmax, sparse
from torch_impl.fast.linear import linear_attention
from torch_impl.fast.pools import pool
from torch_impl.fast.problem import Problem
from torch_impl.kernels import takes_tensors
from torch_impl.transforms import TensorBatchNorm, TorchTransform, fit

TAKE_ZERO = (BatchNorm, TensorBatchNorm, UnitNorm)  # transforms of which padding, which is zero, may be taken


def expansion(problem: Problem) -> Float[torch.Tensor, "... M Dv"]:
    """sum_j v_j <Phi(T q_i), Phi(T k_j)> / h(q_i), over the keys j that query i sees."""
    if sparse.splits_by_remainder(problem):
        f = _evaluate(_simplify(sparse.split_by_remainder(problem)))
        return sparse.join_remainders(f, problem.queries)
    return _evaluate(_simplify(problem))


def weights(problem: Problem) -> Float[torch.Tensor, "... M N"]:
    """<Phi(T q_i), Phi(T k_j)> / h(q_i), a pool's weight spread over its keys."""
    simple = _simplify(problem)
    own = _what_is_own(simple)
    if own is not None:
        return blockwise.weights_by(own, simple)
    w = softmax.softmax_weights(simple) if simple.is_softmax else blockwise.weights_by(blockwise.definition, simple)
    return w if simple.keys == problem.keys else blockwise.spread_over_pools(w, problem)


def _simplify(problem: Problem) -> Problem:
    """Pool the keys and apply the transforms, as far as all queries have them in common or they fold into the query."""
    shared = problem.visibility.shared
    if shared and problem.scale > 1:
        problem = _pool(problem)
    takes_zero = problem.is_softmax and all(isinstance(part, TAKE_ZERO) for part in problem.transforms)
    if not takes_zero and problem.visibility.valid is not None:
        problem = replace(problem, k=blockwise.replace_padding(problem.k, problem.visibility.valid))
    if problem.scale == 1:
        problem = _apply_transforms(problem, _count_independent(problem.transforms))
    problem = softmax.fold_batch_norm(problem)
    if shared:
        problem = _apply_transforms(problem, len(problem.transforms))
    return problem


def _what_is_own(problem: Problem) -> blockwise.Weights | None:
    """How to evaluate a problem whose queries have training sets, or pools, of their own; None if they have not."""
    if problem.transforms or (problem.scale > 1 and not problem.is_softmax):
        return blockwise.own_training_sets
    return blockwise.own_pools if problem.scale > 1 else None


def _evaluate(problem: Problem) -> Float[torch.Tensor, "... M Dv"]:
    """The expansion of a problem that was simplified. What is left of its pools and transforms depends on the query."""
    own = _what_is_own(problem)
    if own is not None:
        return blockwise.expansion_by(own, problem)
    if sparse.splits_into_windows(problem):
        return join_blocks(_with_common_keys(sparse.split_into_windows(problem)), problem.queries)
    return _with_common_keys(problem)


def _with_common_keys(problem: Problem) -> Float[torch.Tensor, "... M Dv"]:
    """All queries choose from the same training points, which are ready."""
    kernel, visibility = problem.kernel, problem.visibility
    if problem.is_softmax:
        return softmax.softmax_attention(problem)
    linear = problem.normalizer == "sum" and visibility.by_key and not problem.dropout_p
    if linear and isinstance(kernel, PositiveFeatures) and takes_tensors(kernel):
        return linear_attention(
            kernel.log_features(problem.q),
            kernel.log_features(problem.k),
            problem.v,
            visibility.valid,
            visibility.log_weight,
            is_causal=visibility.causal,
        )
    return blockwise.expansion_by(blockwise.definition, problem)


def _pool(problem: Problem) -> Problem:
    """The problem after averaging the keys, the values and what is added to their logits, `scale` at a time."""
    visibility, scale = problem.visibility, problem.scale
    k, has_key = pool(problem.k, visibility.valid, scale)
    v, _ = pool(problem.v, visibility.valid, scale)
    log_weight = visibility.log_weight
    if log_weight is not None:
        log_weight = pool(log_weight.mT, visibility.valid, scale)[0].mT
    return replace(problem, scale=1, k=k, v=v, visibility=replace(visibility, valid=has_key, log_weight=log_weight))


def _apply_transforms(problem: Problem, count: int) -> Problem:
    """The problem after its first `count` transforms, fitted on all keys."""
    if not count:
        return problem
    apply, k = fit(problem.transforms[:count], problem.k, problem.visibility.valid)
    return replace(problem, transforms=problem.transforms[count:], q=apply(problem.q), k=k)


def _count_independent(transforms: tuple[TorchTransform, ...]) -> int:
    """How many transforms there are before the first that depends on the keys."""
    dependent = (i for i, part in enumerate(transforms) if not getattr(part, "independent_of_keys", False))
    return next(dependent, len(transforms))
