"""MultiheadAttention: in the place of torch's own, and against its heads, one after another."""

import pytest
import torch
from torch import nn

import torch_impl
from primal_dual import BatchNorm, Convolution, Heads, Primal, Window, catalog, heads
from torch_impl import MultiheadAttention
from torch_impl.drop_in import timm_attention

B, L, S, E, H = 2, 5, 7, 12, 3
NAMES = [name for name in catalog if name != "multi-head"]


def pair(primal="softmax", **options):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(E, H, **options).double()
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.5)
    ours = MultiheadAttention(E, H, **options, primal=primal).double()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def masks():
    padding = torch.zeros(B, S, dtype=torch.bool)
    padding[0, -2:] = padding[1, 3] = True
    table = torch.rand(L, S) < 0.3
    table[:, 0] = False
    by_head = torch.rand(B * H, L, S) < 0.3
    by_head[..., 0] = False
    weights = torch.randn(L, S, dtype=torch.double)
    hide = torch.zeros(B, S, dtype=torch.double).masked_fill(padding, float("-inf"))
    return {
        "none": {},
        "padding": dict(key_padding_mask=padding),
        "table": dict(attn_mask=table),
        "by head": dict(attn_mask=by_head),
        "both": dict(key_padding_mask=padding, attn_mask=table),
        "float table": dict(attn_mask=weights),
        "float padding": dict(key_padding_mask=hide),
        "both float": dict(key_padding_mask=hide, attn_mask=weights),
        "padding that weighs": dict(key_padding_mask=hide + torch.randn(B, S)),
    }


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("options", [{}, dict(batch_first=True), dict(bias=False), dict(kdim=4, vdim=3)], ids=str)
def test_softmax_equals_torchs(mask, average, options):
    theirs, ours = pair(**options)
    sizes = (E, options.get("kdim", E), options.get("vdim", E))
    x = [torch.randn(n, B, size).double() for n, size in zip((L, S, S), sizes, strict=True)]
    x = [each.transpose(0, 1) for each in x] if options.get("batch_first") else x
    torch.manual_seed(1)
    chosen = masks()[mask]
    expected = theirs(*x, **chosen, average_attn_weights=average)
    for actual, right in zip(ours(*x, **chosen, average_attn_weights=average), expected, strict=True):
        torch.testing.assert_close(actual, right)
    alone, no_weights = ours(*x, **chosen, need_weights=False)
    torch.testing.assert_close(alone, expected[0])
    assert no_weights is None


def test_one_sequence_and_causality_equal_torchs():
    theirs, ours = pair()
    x = torch.randn(L, E).double()
    later = torch.ones(L, L).triu(1).bool()
    expected, weights = theirs(x, x, x, attn_mask=later)
    for options in (dict(attn_mask=later), dict(attn_mask=later, is_causal=True), dict(is_causal=True)):
        f, w = ours(x, x, x, **options)
        torch.testing.assert_close((f, w), (expected, weights))


@pytest.mark.parametrize("name", NAMES)
def test_is_its_heads_side_by_side(name):
    """By the projections' definition, head after head, for every catalog name; padding and weights included."""
    _, ours = pair(name, batch_first=True)
    x, valid = torch.randn(B, S, E).double(), ~masks()["padding"]["key_padding_mask"]
    valid[:, :3] = True
    f, weights = ours(x, x, x, key_padding_mask=~valid, average_attn_weights=False)
    q, k, v = (x @ ours.in_proj_weight.T + ours.in_proj_bias).chunk(3, -1)
    each = []
    for s, primal in enumerate(heads(name, H)):
        head = slice(s * E // H, (s + 1) * E // H)
        each.append(torch_impl.attention(primal, q[..., head], k[..., head], v[..., head], valid, query_mask=valid))
        torch.testing.assert_close((weights[:, s] @ v[..., head])[valid], each[-1][valid])
    expected = torch.cat(each, -1) @ ours.out_proj.weight.T + ours.out_proj.bias
    torch.testing.assert_close(f[valid], expected[valid])


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name):
    _, ours = pair(name, batch_first=True)
    x = torch.randn(B, S, E).double()
    padding = torch.arange(S + 4).expand(B, -1) >= S
    padded = torch.cat([x, 100 * torch.randn(B, 4, E).double()], 1)
    torch.testing.assert_close(ours(padded, padded, padded, padding)[0][:, :S], ours(x, x, x)[0])


def test_state_dict_is_torchs():
    for options in ({}, dict(bias=False), dict(kdim=4, vdim=3)):
        theirs, ours = pair("bn", **options)
        assert {n: p.shape for n, p in ours.state_dict().items()} == {
            n: p.shape for n, p in theirs.state_dict().items()
        }
    _, ours = pair("bn")
    broken = dict(ours.state_dict(), extra=torch.zeros(1))
    del broken["in_proj_weight"]
    with pytest.raises(RuntimeError, match=r'(?s)Missing key.*"in_proj_weight".*Unexpected key.*"extra"'):
        ours.load_state_dict(broken)


def test_beta_and_taps_learn():
    torch.manual_seed(0)
    primal = Primal(transform=(Convolution((0.0, 1.0, 0.0)), BatchNorm(0.5)))
    layer = MultiheadAttention(E, H, primal=primal, learn_beta=True, learn_taps=True)
    fixed = MultiheadAttention(E, H, primal=primal)
    fixed.load_state_dict({n: p for n, p in layer.state_dict().items() if n not in ("beta", "taps")})
    x = torch.randn(S, B, E)
    torch.testing.assert_close(layer(x, x, x), fixed(x, x, x))
    assert layer.beta.tolist() == [0.5] * H and layer.taps.tolist() == [0.0, 1.0, 0.0]
    optimizer, losses = torch.optim.Adam(layer.parameters(), lr=0.02), []
    for _ in range(30):
        loss = (layer(x, x, x, need_weights=False)[0] - x.roll(1, 0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert (layer.beta != 0.5).all() and (layer.taps != torch.tensor([0.0, 1.0, 0.0])).all()


def test_dropout_is_for_training_alone():
    layer = MultiheadAttention(E, H, dropout=0.5, primal="bn")
    x = torch.randn(S, B, E)
    assert not torch.equal(layer(x, x, x)[0], layer(x, x, x)[0])
    layer.eval()
    torch.testing.assert_close(layer(x, x, x)[0], layer(x, x, x)[0], rtol=0, atol=0)


def test_primals_of_a_layer():
    assert MultiheadAttention(E, 4, primal="sh").primal == heads("sh", 4)
    assert MultiheadAttention(E, H, primal=Primal(support=Window(1))).primal == Heads(*[Primal(support=Window(1))] * H)
    assert "BatchNorm" in repr(MultiheadAttention(E, H, primal="bn"))


@pytest.mark.parametrize("options", [{}, dict(kdim=E, vdim=E), dict(kdim=4, vdim=3)], ids=str)
def test_it_says_as_torchs_does_how_its_weights_are_kept(options):
    theirs, ours = pair("bn", **options)
    assert ours._qkv_same_embed_dim == theirs._qkv_same_embed_dim == (ours.in_proj_weight is not None)


def test_a_bias_that_is_taken_away():
    theirs, ours = pair()
    theirs.in_proj_bias = ours.in_proj_bias = None
    x = torch.randn(3, S, B, E).double()
    torch.testing.assert_close(ours(*x), theirs(*x))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors():
    """Those that torch's encoder makes of left-aligned padding, and no others."""
    _, ours = pair("bn", batch_first=True)
    sequences = [torch.randn(n, E).double() for n in (5, 3)]
    nested = torch.nested.nested_tensor(sequences)
    found = ours(nested, nested, nested, need_weights=False)[0].unbind()
    for y, x in zip(found, sequences, strict=True):
        torch.testing.assert_close(y, ours(x, x, x)[0])
    jagged = torch.nested.nested_tensor(sequences, layout=torch.jagged)
    other = torch.nested.nested_tensor(sequences)
    for inputs, options in (
        ((nested, nested, nested), {}),
        ((nested, other, other), dict(need_weights=False)),
        ((jagged, jagged, jagged), dict(need_weights=False)),
        ((nested, nested, nested), dict(need_weights=False, attn_mask=torch.zeros(5, 5).bool())),
    ):
        with pytest.raises(ValueError, match="query, key, value: expected padded tensors, or one nested tensor"):
            ours(*inputs, **options)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripting_is_refused_in_one_line():
    for module in (MultiheadAttention(E, H), nn.Sequential(MultiheadAttention(E, H))):
        with pytest.raises(ValueError, match=r"torch.jit.script: expected .*; use torch.compile or torch.export"):
            torch.jit.script(module)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_heads=3.0), "num_heads: expected a whole number >= 1; got 3.0"),
        (dict(embed_dim=0), "embed_dim: expected a whole number >= 1; got 0"),
        (dict(kdim=True), "kdim: expected a whole number >= 1; got True"),
        (dict(dropout=1.0), r"dropout: expected a number in \[0, 1\); got 1.0"),
        (dict(dropout="0.1"), r"dropout: expected a number in \[0, 1\); got '0.1'"),
    ],
)
def test_arguments_of_another_type_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MultiheadAttention(**{**dict(embed_dim=E, num_heads=H), **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(need_weights=1), "need_weights: expected True or False; got 1"),
        (dict(is_causal=None), "is_causal: expected True or False; got None"),
        (
            dict(query=torch.randn(L, B, E).half()),
            "query: expected the dtype of the weights, torch.float32; got torch.float16",
        ),
        (
            dict(value=torch.ones(S, B, E).long()),
            "value: expected the dtype of the weights, torch.float32; got torch.int64",
        ),
        (dict(key=[1.0]), "key: expected a tensor of 2 or 3 axes"),
        (dict(attn_mask=torch.ones(L, S).int()), "attn_mask: expected booleans or floats"),
        (dict(key_padding_mask="all"), "key_padding_mask: expected booleans or floats"),
    ],
)
def test_inputs_of_another_type_are_refused(options, message):
    x = dict(query=torch.randn(L, B, E), key=torch.randn(S, B, E), value=torch.randn(S, B, E))
    with pytest.raises(ValueError, match=message):
        MultiheadAttention(E, H)(**{**x, **options})


@pytest.mark.parametrize("low", [-100.0, -1e4, -1e9, torch.finfo(torch.float64).min])
@pytest.mark.parametrize("name", ["bn", "sh", "conv1d", "linear-bn"])
def test_low_numbers_hide_what_a_mean_would_take_in(name, low):
    _, ours = pair(name, batch_first=True)
    x = torch.randn(B, L, E).double()
    for argument, hidden in (
        ("attn_mask", torch.ones(L, L, dtype=torch.bool).triu(1)),
        ("key_padding_mask", torch.arange(L).expand(B, -1) >= 3),
    ):
        written = [torch.zeros(hidden.shape).double().masked_fill(hidden, number) for number in (low, float("-inf"))]
        found, expected = (ours(x, x, x, **{argument: mask})[0] for mask in written)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    image = x[:, None].expand(-1, L, -1, -1).flatten(0, 1)
    layer = timm_attention(name)(E, num_heads=H).double()
    found, expected = (layer(image, attn_mask=mask[0].expand(len(image), 1, 1, L)) for mask in written)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_numbers_that_are_not_so_low_are_added_to_the_logits():
    _, ours = pair("bn", batch_first=True)
    x, later = torch.randn(B, L, E).double(), torch.ones(L, L, dtype=torch.bool).triu(1)
    found, hidden = (
        ours(x, x, x, attn_mask=torch.zeros(L, L).double().masked_fill(later, low))[0] for low in (-50.0, float("-inf"))
    )
    assert not torch.allclose(found, hidden)


def test_what_is_learned_begins_at_the_primals_numbers_in_every_dtype_and_again():
    primal = Primal(transform=(Convolution((0.2, 0.5, 0.3)), BatchNorm(0.3)))
    layer = MultiheadAttention(E, H, primal=primal, learn_beta=True, learn_taps=True, dtype=torch.float64)
    for _ in range(2):
        assert layer.beta.tolist() == [0.3] * H and layer.taps.tolist() == [0.2, 0.5, 0.3]
        layer = layer.to("meta").to_empty(device="cpu")
        layer.beta.data.fill_(torch.nan)
        layer._reset_parameters()


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_anomalies_are_none_where_a_query_sees_no_key():
    _, ours = pair("bn", batch_first=True)
    x = torch.randn(B, L, E).double().requires_grad_()
    with torch.autograd.detect_anomaly(check_nan=True):
        ours(x, x, x, torch.ones(B, L, dtype=torch.bool))[0].sum().backward()
    assert x.grad.isfinite().all()


def test_shapes_alone_can_be_asked_for():
    layer, x = MultiheadAttention(E, H, primal="conv1d", device="meta"), torch.empty(S, B, E, device="meta")
    assert layer(x[:L], x, x)[0].shape == (L, B, E)
