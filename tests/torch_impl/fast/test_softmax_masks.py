"""The masks that torch's fused attention is given."""

import pytest
import torch

import torch_impl
from primal_dual import Primal, Window
from torch_impl.fast import softmax


class OnAGpu(torch.Tensor):
    """A tensor that says it is on a GPU."""

    @property
    def is_cuda(self):
        return True


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_on_a_gpu_a_hidden_key_has_a_logit_of_minus_infinity(dtype):
    """torch 2.11 has -65504 there, which leaves a query that sees no key with equal weights."""
    table = torch.tensor([[True, False], [False, False]], device="cpu")
    half, single = (torch.ones(2, 3, dtype=each, device="cpu") for each in (dtype, torch.float32))
    mask = softmax._mask_for_torch(table, half.as_subclass(OnAGpu), ())
    assert mask.dtype == dtype and mask.tolist() == [[0, float("-inf")], [float("-inf")] * 2]
    assert softmax._mask_for_torch(table, half, ()) is table
    assert softmax._mask_for_torch(table, single.as_subclass(OnAGpu), ()) is table


@pytest.mark.parametrize(("lengths", "copies"), [(None, 1), ([70, 40], 6)])
def test_a_mask_is_repeated_only_where_examples_have_masks_of_their_own(monkeypatch, lengths, copies):
    shapes = []

    def fused(q, k, v, mask, *rest, **options):
        shapes.append((len(q), len(mask)))
        return sdpa(q, k, v, mask, *rest, **options)

    sdpa = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused)
    q, k, v = torch.randn(3, 2, 3, 70, 5, dtype=torch.float64)
    key_mask = None if lengths is None else torch.arange(70) < torch.tensor(lengths)[:, None, None]
    f = torch_impl.attention(Primal(support=Window(4)), q, k, v, key_mask)
    assert shapes == [(6, copies)]
    weights = torch_impl.attention_weights(Primal(support=Window(4)), q, k, key_mask)
    torch.testing.assert_close(f, weights @ v)
