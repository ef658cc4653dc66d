"""One graph: torch.compile without a break, torch.export with any batch and length."""

import pytest
import torch
from torch import nn
from torch.export import Dim

import torch_impl
from primal_dual import EluPlusOne, Primal, catalog, heads
from tests.on_device import paused
from torch_impl import MultiheadAttention
from torch_impl.drop_in import replace_attention, timm_attention


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(0)
    torch.compiler.reset()


def assert_one_graph(f, *x):
    with paused():
        ours = torch.compile(f, fullgraph=True, backend="aot_eager")(*x)
    right = f(*x)
    torch.testing.assert_close(ours, right)
    inputs = [each for each in x if each is not None and each.is_floating_point()]
    for a, b in zip(torch.autograd.grad(ours.sum(), inputs), torch.autograd.grad(right.sum(), inputs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", catalog)
def test_attention(name, masked):
    members = heads(name, 4)
    q, k, v = (torch.randn(2, 4, 70, 8, dtype=torch.double, requires_grad=True) for _ in range(3))
    key_mask = torch.rand(2, 70) < 0.8 if masked else None
    assert_one_graph(lambda *x: torch_impl.attention(members, *x), q, k, v, key_mask)


def test_causal_linear_attention():
    x = (torch.randn(2, 4, 300, 8, dtype=torch.double, requires_grad=True) for _ in range(3))
    primal = Primal(EluPlusOne())
    assert_one_graph(lambda *x: torch_impl.attention(primal, *x, is_causal=True), *x)


@pytest.mark.parametrize("name", catalog)
def test_layers(name):
    x = torch.randn(2, 9, 16, dtype=torch.double, requires_grad=True)
    padding = torch.arange(9).expand(2, -1) >= torch.tensor([[9], [7]])
    layer = MultiheadAttention(16, 4, batch_first=True, primal=name).double()
    assert_one_graph(lambda x: layer(x, x, x, padding, need_weights=False)[0], x)
    torch.compiler.reset()
    timm = timm_attention(name)(16, 4).double()
    assert_one_graph(lambda x: timm(x, attn_mask=~padding[:, None, None]), x)


def test_learned_parameters_and_autocast():
    layer = MultiheadAttention(16, 4, batch_first=True, primal="bn", learn_beta=True)
    x = torch.randn(2, 9, 16)

    def loss(x):
        with torch.autocast(x.device.type, torch.bfloat16):
            return layer(x, x, x, need_weights=False)[0].float().square().sum()

    with paused():
        ours = torch.compile(loss, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(ours, loss(x), rtol=1e-2, atol=1e-2)
    ours.backward()
    assert (layer.beta.grad != 0).all()


class Classifier(nn.Module):
    def __init__(self, primal):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 20, batch_first=True)
        self.encoder = replace_attention(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), primal)
        self.head = nn.Linear(16, 3)

    def forward(self, x, padding):
        return self.head(self.encoder(x, src_key_padding_mask=padding).mean(1))


ANY_LENGTH = ["softmax", "bn", "sh", "bn+sh", "linear", "linear-bn", "qk-norm", "causal", "causal-bn", "conv1d", "rbf"]


@pytest.mark.parametrize("name", catalog)
def test_export_with_any_batch_and_length(name):
    """Attention in blocks of tokens fixes their number, but for the pools of SH; any batch is for all."""
    model = Classifier(name).double().eval()

    def example(batch, length):
        x = torch.randn(batch, length, 16, dtype=torch.double)
        return x, torch.arange(length).expand(batch, -1) >= torch.randint(length // 2, length + 1, (batch, 1))

    dynamic = {0: Dim("batch")}
    if name in ANY_LENGTH:
        dynamic[1] = Dim("length", min=16, max=4096)
    program = torch.export.export(model, example(3, 41), dynamic_shapes=(dynamic, dynamic)).module()
    for batch, length in ((2, 41), *([(5, 16), (3, 150)] if name in ANY_LENGTH else [])):
        x = example(batch, length)
        torch.testing.assert_close(program(*x), model(*x))
