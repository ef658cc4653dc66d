"""Certificates of the heads of trained modules."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import torch_impl
from primal_dual import BatchNorm, Causal, Certificate, Convolution, Primal, Strided, Window, catalog, certify, heads
from primal_dual.classifier import digits
from primal_dual.sequence import convolve_sequence
from torch_impl import MultiheadAttention, certify_module
from torch_impl.drop_in import replace_attention


class Classifier(nn.Module):
    """A transformer on the rows of the digits: 8 tokens of 8 pixels."""

    def __init__(self, primal):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True)
        self.embed, self.positions = nn.Linear(8, 16), nn.Parameter(torch.randn(8, 16))
        self.encoder = replace_attention(nn.TransformerEncoder(layer, 2), primal)
        self.head = nn.Linear(16, 10)

    def forward(self, x, key_mask=None):
        padding = None if key_mask is None else ~key_mask
        return self.head(self.encoder(self.embed(x) + self.positions, src_key_padding_mask=padding).mean(1))


@pytest.fixture(scope="module")
def data():
    x, y, _, _ = digits()
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


@pytest.mark.parametrize("primal", ["softmax", "bn", "sh", "bn+sh", "linear", "causal-bn"])
def test_every_head_of_a_trained_classifier_is_an_svr(primal, data):
    torch.manual_seed(0)
    (x, y), model = data, Classifier(primal)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(200):
        batch = torch.randperm(len(x))[:128]
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.7  # 2.3 untrained
    certificates = certify_module(model, x[:2])
    assert len(certificates) == 2 * 2 * 4 and model.training
    assert {each.module for each in certificates} == {"encoder.layers.0.self_attn", "encoder.layers.1.self_attn"}
    assert all(isinstance(each.certificate, Certificate) for each in certificates)
    assert max(each.certificate.relative_gap for each in certificates) < 1e-11
    assert max(each.certificate.feasibility for each in certificates) == 0
    assert str(certificates).startswith("16 SVRs of 2 attention modules: worst relative gap ")
    assert certificates[0].certificate.targets.dtype == np.float64


def recorded(layer, x, padding=None):
    found = certify_module(layer, dict(query=x, key=x, value=x, key_padding_mask=padding))
    assert [each.head for each in found] == list(range(layer.num_heads))
    return [each.certificate for each in found]


def keys_and_values(layer, x):
    _, k, v = (x @ layer.in_proj_weight.T + layer.in_proj_bias).double().chunk(3, -1)
    return (z[0].unflatten(-1, (layer.num_heads, -1)).transpose(0, 1).detach().cpu().numpy() for z in (k, v))


@pytest.mark.parametrize("name", [name for name in catalog if name != "multi-head"])
def test_its_targets_are_the_layers_own_outputs(name):
    torch.manual_seed(0)
    layer = MultiheadAttention(8, 2, batch_first=True, primal=name).double()
    x = torch.randn(1, 7, 8).double()
    members = heads(name, 2)
    for certificate, primal, k, v in zip(recorded(layer, x), members, *keys_and_values(layer, x), strict=True):
        right = certify(primal, k, v, query=certificate.query)
        assert certificate.relative_gap < 1e-12
        np.testing.assert_allclose(certificate.targets, right.targets, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("support", [None, Causal(), Window(2), Strided(2)])
@pytest.mark.parametrize("where", ["end", "middle"])
def test_padding_is_no_training_point(support, where):
    torch.manual_seed(0)
    primal = Primal(transform=BatchNorm()) if support is None else Primal(support=support)
    layer = MultiheadAttention(8, 2, batch_first=True, primal=primal).double()
    x, padding = torch.randn(1, 7, 8).double(), torch.zeros(1, 7, dtype=torch.bool)
    padding[0, -2 if where == "end" else 2 :][:2] = True
    if where == "end" or support is None:
        for certificate, k, v in zip(
            recorded(layer, x, padding), *keys_and_values(layer, x[~padding][None]), strict=True
        ):
            right = certify(primal, k, v, query=certificate.query)
            np.testing.assert_allclose(certificate.targets, right.targets, rtol=1e-9, atol=1e-12)
    changed = x.clone()
    changed[padding] = torch.randn(2, 8).double()
    for a, b in zip(recorded(layer, x, padding), recorded(layer, changed, padding), strict=True):
        assert a.relative_gap < 1e-12
        np.testing.assert_allclose(a.targets, b.targets, rtol=1e-9, atol=1e-12)


def test_learned_parameters_and_call_time_causality_are_in_the_primal():
    torch.manual_seed(0)
    primal = Primal(transform=(Convolution((0.2, 0.5, 0.3)), BatchNorm()))
    layer = MultiheadAttention(8, 2, batch_first=True, primal=primal, learn_beta=True, learn_taps=True).double()
    with torch.no_grad():
        layer.beta.copy_(torch.tensor([0.3, 0.8]))
        layer.taps.copy_(torch.tensor([0.1, 0.7, 0.4]))
    x = torch.randn(1, 6, 8).double()
    arguments = dict(query=x, key=x, value=x, is_causal=True)
    certificates = certify_module(layer, arguments)
    for each, k, v in zip(certificates, *keys_and_values(layer, x), strict=True):
        taps, beta = tuple(layer.taps.tolist()), layer.beta[each.head].item()
        own = Primal(transform=(Convolution(taps), BatchNorm(beta)), support=Causal())
        np.testing.assert_allclose(each.certificate.targets, certify(own, k, v).targets, rtol=1e-8, atol=1e-12)


def attending(primal, **options):
    class Own(nn.Module):
        def forward(self, x, keys=None):
            keys = x if keys is None else keys
            return torch_impl.attention(primal, x, keys, keys, **options)

    return Own()


def test_the_query_is_that_of_the_call():
    x = torch.randn(4, 2).double()
    order = torch.eye(4).bool()[torch.tensor([2, 0, 3, 1])]
    (only,) = certify_module(attending(Primal(), attn_mask=order), x)
    seen = order[only.certificate.query].nonzero().item()
    np.testing.assert_allclose(only.certificate.targets[0], x[seen].cpu())
    (only,) = certify_module(
        attending(Primal(support=Window(1))), (torch.randn(3, 2).double(), torch.randn(6, 2).double())
    )
    assert only.certificate.query < 3


def test_causality_and_masks_of_the_call_cut_the_support():
    torch.manual_seed(0)
    x, key_mask = torch.randn(6, 2).double(), torch.tensor([True, True, False, True, True, True])
    call = attending(Primal(support=Window(2)), is_causal=True)
    call_with_padding = attending(Primal(support=Window(2)), is_causal=True, key_mask=key_mask)
    table = np.tril(np.triu(np.ones((6, 6), bool), -2))
    for module, rows in ((call, table), (call_with_padding, (table & key_mask.cpu().numpy())[key_mask.cpu().numpy()])):
        ((_, _, _, certificate),) = certify_module(module, x)
        queries = np.arange(6) if module is call else key_mask.nonzero()[:, 0].cpu().numpy()
        own = rows[np.flatnonzero(queries == certificate.query)[0]]
        np.testing.assert_allclose(
            certificate.targets, certify(Primal(), x[own].cpu().numpy(), x[own].cpu().numpy()).targets
        )


def test_what_sees_nothing_has_no_svr_and_modes_are_kept():
    layer = MultiheadAttention(8, 2, batch_first=True, primal="bn")
    padding = torch.tensor([[False] * 5, [True] * 5])
    x = torch.randn(2, 5, 8)
    certificates = certify_module(layer, dict(query=x, key=x, value=x, key_padding_mask=padding))
    assert {each.example for each in certificates} == {0}
    none = certify_module(attending(Primal(), attn_mask=torch.zeros(4, 4).bool()), torch.randn(4, 2))
    assert none == () and str(none) == "0 SVRs: no query sees a key"
    model = nn.Sequential(nn.BatchNorm1d(6), attending(Primal(bias=True))).train()
    model[0].eval()
    (_, _, _, certificate), *_ = certify_module(model, [torch.randn(2, 6, 4)])
    assert certificate.relative_gap < 1e-12 and model[1].training and not model[0].training
    with pytest.raises(ValueError, match=r"expected an nn\.Module; got 'bn'"):
        certify_module("bn", x)


def test_error_bounds_are_those_of_certify():
    x = torch.randn(8, 4).double()
    (only,) = certify_module(attending(catalog["conv2d"]), x)
    right = certify(catalog["conv2d"], x.cpu().numpy(), x.cpu().numpy())
    np.testing.assert_allclose(
        only.certificate.error_bound(x[:3].cpu().numpy()), right.error_bound(x[:3].cpu().numpy()), rtol=1e-6, atol=1e-12
    )


def test_modules_of_others():
    torch.manual_seed(0)

    class Own(nn.Module):
        def forward(self, x):
            return torch_impl.attention(catalog["bn"], x, x, x)

    (only,) = certify_module(Own(), torch.randn(5, 3))
    assert (only.module, only.example, only.head) == ("Own", 0, 0) and only.certificate.relative_gap < 1e-12
    with pytest.raises(ValueError, match="attention inside, as replace_attention puts it there; got Linear"):
        certify_module(nn.Linear(3, 3), torch.randn(5, 3))
    layer = MultiheadAttention(8, 2)
    weights = dict(query=(x := torch.randn(5, 1, 8)), key=x, value=x, attn_mask=torch.randn(5, 5))
    with pytest.raises(ValueError, match="masks that hide keys; got one with finite weights"):
        certify_module(layer, weights)
    assert torch_impl.recorder._recorder.record is None


@pytest.mark.parametrize("is_causal", [False, True])
def test_convolutions_under_a_mask_look_where_those_of_the_call_do(is_causal):
    """The targets are the outputs of the call at its keys: a convolution sees both sides, or back only."""
    torch.manual_seed(0)
    x, key_mask = torch.randn(7, 3).double(), torch.tensor([True, True, False, True, True, True, True])
    module = attending(catalog["conv1d"], is_causal=is_causal, key_mask=key_mask, query_mask=key_mask)
    (only,) = certify_module(module, x)
    in_numpy = x.cpu().numpy(), key_mask.cpu().numpy()
    seen = key_mask.clone()
    if is_causal:
        seen[only.certificate.query + 1 :] = False
    whole = torch_impl.attention(catalog["conv1d"], x, x, x, key_mask, query_mask=key_mask)
    if not is_causal:  # each query's SVR has all valid keys, so that its targets are the outputs of the call
        np.testing.assert_allclose(only.certificate.targets, whole[seen].cpu(), rtol=1e-9)
    supports = Causal() if is_causal else catalog["conv1d"].support
    k = convolve_sequence(replace(catalog["conv1d"], support=supports), *in_numpy)[seen.cpu()]
    right = certify(Primal(), k, x[seen].cpu().numpy())
    np.testing.assert_allclose(only.certificate.targets, right.targets, rtol=1e-9)
