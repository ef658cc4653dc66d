"""With --device, what tests make and what the package computes is on that device, and on the CPU without it."""

import torch

from primal_dual import Primal
from torch_impl import MultiheadAttention, attention_weights
from torch_impl.models.encoders import TimeSeriesEncoder


def test_tensors_modules_and_results_are_on_the_device(pytestconfig):
    device, x = pytestconfig.getoption("device"), torch.ones(2, 7, 8)
    layer, model = MultiheadAttention(8, 2, batch_first=True), TimeSeriesEncoder(8, 7, 3, "bn", width=8, num_heads=2)
    made = x, torch.tensor([1.0]), layer.in_proj_weight, *model.parameters()
    computed = layer(x, x, x)[0], attention_weights(Primal(), x, x), model(x)
    assert {tensor.device.type for tensor in (*made, *computed)} == {device}
