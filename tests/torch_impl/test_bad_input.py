"""One error that names what was expected and what came."""

import pytest
import torch

import torch_impl
from primal_dual import Heads, Mask, Primal, catalog, encoder_params, heads
from torch_impl import MultiheadAttention

q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 6)
valid = torch.ones(2, 3, 7, dtype=torch.bool)
bn = catalog["bn"]


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((bn, q.cpu().numpy(), k, v), {}, "q: expected a tensor; got ndarray"),
        ((bn, q, k.long(), v), {}, "k: expected floating-point numbers; got torch.int64"),
        ((bn, q, k[0, 0, 0], v), {}, r"k: expected shape \(..., N, D\), no axis empty; got \(4,\)"),
        ((bn, q, k[..., :0, :], v), {}, r"k: expected shape \(..., N, D\), no axis empty; got \(2, 3, 0, 4\)"),
        ((bn, q, k, v.double()), {}, "q, v: expected one dtype; got torch.float32 and torch.float64"),
        ((bn, q, k.to("meta"), v), {}, r"q, k: expected one device; got \S+ and meta"),
        ((bn, q, k[..., :3], v), {}, "q, k: expected the same last axis, D; got 4 and 3"),
        ((bn, q, k, v[..., :6, :]), {}, "k, v: expected as many values as keys, N; got 7 and 6"),
        ((bn, q, k[:, :2], v), {}, r"leading axes that broadcast; got q \(2, 3\), k \(2, 2\)"),
        (("bn", q, k, v), {}, r"primal: expected a Primal or Heads, such as catalog\['bn'\]; got 'bn'"),
        ((Primal, q, k, v), {}, "primal: expected a Primal or Heads"),
        ((heads("bn", 2), q, k, v), {}, r"q: expected \(..., 2 heads, tokens, features\); got \(2, 3, 5, 4\)"),
        ((heads("bn", 5), q[0, 0], k, v), {}, r"q: expected \(..., 5 heads, tokens, features\); got \(5, 4\)"),
        (
            (bn, q, k, v, valid.float()),
            {},
            r"key_mask: .* booleans \(..., 7\), True for a valid token; got torch.float32",
        ),
        ((bn, q, k, v, valid[..., 1:]), {}, r"key_mask: expected .* got torch.bool \(2, 3, 6\)"),
        ((bn, q, k, v, [True] * 7), {}, "key_mask: expected a tensor of booleans .* got list"),
        ((bn, q, k, v, valid.to("meta")), {}, r"key_mask: expected it on \S+; got meta"),
        (
            (heads("bn", 3), q, k, v, valid),
            {},
            "key_mask: expected at most 2 axes, since masks have no axis of heads",
        ),
        ((bn, q, k, v, valid[:, :2]), {}, r"leading axes that broadcast; got lead \(2, 3\), key_mask \(2, 2\)"),
        ((bn, q, k, v), dict(query_mask=valid), r"query_mask: expected .* \(..., 5\)"),
        (
            (bn, q, k, v),
            dict(attn_mask=torch.ones(5, 6).bool()),
            r"attn_mask: .* \(..., 5, 7\); got torch.bool \(5, 6\)",
        ),
        (
            (bn, q, k, v),
            dict(attn_mask=torch.ones(5, 7).long()),
            r"attn_mask: expected booleans or floats .* torch.int64",
        ),
        ((bn, q, k, v), dict(attn_mask=torch.ones(2, 2, 5, 7).bool()), r"broadcast; got lead .* attn_mask \(2, 2\)"),
        (
            (Primal(support=Mask([[True]])), q, k, v),
            {},
            r"Mask: expected a table \(5, 7\), queries by keys; got \(1, 1\)",
        ),
    ],
)
def test_attention(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        torch_impl.attention(*arguments, **options)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: MultiheadAttention(10, 4), "embed_dim: expected a multiple of 4 heads; got 10"),
        (lambda: MultiheadAttention(8, 4, primal="bm"), "did you mean"),
        (lambda: MultiheadAttention(8, 4, primal=Heads(Primal(), Primal())), "expected Heads of 4; got 2"),
        (lambda: MultiheadAttention(8, 4, add_bias_kv=True), "add_bias_kv, add_zero_attn: expected False"),
        (lambda: MultiheadAttention(8, 4, add_zero_attn=True), "add_bias_kv, add_zero_attn: expected False"),
        (
            lambda: MultiheadAttention(8, 4, learn_beta=True),
            "learn_beta: expected one BatchNorm in each head; got none",
        ),
        (
            lambda: torch_impl.drop_in.timm_attention(Heads(bn, Primal()), learn_beta=True)(8, 2),
            r"learn_beta: expected one BatchNorm in each head; got \[1, 0\] in the heads",
        ),
        (lambda: MultiheadAttention(8, 4, learn_taps=True), "expected one Convolution, the same in each head; got "),
        (lambda: torch_impl.drop_in.timm_attention("bn")(10, 4), "dim: expected a multiple of 4 heads; got 10"),
    ],
)
def test_layers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(key_padding_mask=torch.zeros(5, 3).bool()), r"key_padding_mask: .* \(3, 5\); got torch.bool \(5, 3\)"),
        (
            dict(key_padding_mask=torch.zeros(3, 5).long()),
            "key_padding_mask: expected booleans or floats .* torch.int64",
        ),
        (dict(attn_mask=torch.zeros(4, 5).bool()), r"attn_mask: expected booleans or floats \(5, 5\)"),
        (dict(attn_mask=torch.zeros(3, 5, 5).bool()), r"attn_mask: expected .* \(5, 5\) or \(6, 5, 5\)"),
        (dict(attn_mask=[[True]]), "attn_mask: expected booleans or floats .* got list"),
        (dict(value=torch.randn(5, 1, 8)), r"value: expected the batch of query, \(5, 3, 8\); got \(5, 1, 8\)"),
        (dict(query=torch.randn(5, 3, 7)), r"query: expected a tensor of 2 or 3 axes, the last of 8; got \(5, 3, 7\)"),
        (dict(key=torch.randn(3, 8)), r"key: expected the batch of query, \(5, 3, 8\); got \(3, 8\)"),
    ],
)
def test_multihead_forward(options, message):
    x = torch.randn(5, 3, 8)
    with pytest.raises(ValueError, match=message):
        MultiheadAttention(8, 2)(**{**dict(query=x, key=x, value=x), **options})


def test_functional_layers():
    import numpy as np

    params = encoder_params(np.random.default_rng(0), features=3, tokens=5, classes=2, heads=2, width=6)
    as_tensors = {name: torch.tensor(x) for name, x in params.items() if name != "layers"}
    layer = {name: torch.tensor(x) for name, x in params["layers"][0].items()}
    x = torch.randn(4, 6).double()
    for wrong, message in (
        ({**layer, "W_O": layer["W_O"][1:]}, r"W_O: expected \(E, H Dh\), W_O \(H Dh, E\), with E = 6 and H = 2; got"),
        ({**layer, "W_Q": 3}, "W_Q: expected a matrix; got int"),
        ({n: W for n, W in layer.items() if n != "W_K"}, "params: expected a dictionary with W_K; got none"),
        ([1], "params: expected a dictionary with W_Q; got none"),
    ):
        with pytest.raises(ValueError, match=message):
            torch_impl.self_attention(wrong, x, heads("bn", 2))
    with pytest.raises(ValueError, match="got none named layers"):
        torch_impl.encoder(as_tensors, torch.randn(4, 3).double(), heads("bn", 2))
    as_tensors["layers"] = [layer]
    for tokens in (torch.randn(9, 3), torch.randn(4, 2)):
        with pytest.raises(ValueError, match=r"tokens: expected \(..., N <= 5, 3\); got"):
            torch_impl.encoder(as_tensors, tokens.double(), heads("bn", 2))
    for wrong in ({**layer, "b_1": layer["b_1"][:1]}, {n: W for n, W in layer.items() if n != "W_1"}):
        with pytest.raises(ValueError, match=r"params: expected W_1 \(E, F\), .* with E = 6; got {'W_1': "):
            torch_impl.encoder(as_tensors | {"layers": [wrong]}, torch.randn(4, 3).double(), heads("bn", 2))


@pytest.mark.parametrize("what", ["sparse_coo", "nested"])
def test_sparse_and_nested_tensors_are_refused_by_name(what):
    x, valid = torch.randn(2, 5, 4), torch.ones(2, 5, dtype=torch.bool)
    if what == "nested":
        bad, bad_mask = (torch.nested.nested_tensor([y[0], y[1]], layout=torch.jagged) for y in (x, valid))
    else:
        bad, bad_mask = x.to_sparse(), valid.to_sparse()
    for name, call in (
        ("q", lambda: torch_impl.attention(Primal(), bad, x, x)),
        ("k", lambda: torch_impl.attention(Primal(), x, bad, x)),
        ("v", lambda: torch_impl.attention(Primal(), x, x, bad)),
        ("key_mask", lambda: torch_impl.attention(Primal(), x, x, x, bad_mask)),
        ("attn_mask", lambda: torch_impl.attention(Primal(), x, x, x, attn_mask=bad)),
    ):
        with pytest.raises(ValueError, match=rf"^{name}: expected a dense tensor; got .*{what}"):
            call()
