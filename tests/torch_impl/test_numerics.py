"""Low precision, and the corners: no variance, no key, one token, short pools, odd layouts."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import primal_dual
import torch_impl
from primal_dual import (
    BatchNorm,
    Causal,
    EluPlusOne,
    Everything,
    Gaussian,
    Heads,
    Primal,
    RandomFeatures,
    UnitNorm,
    Window,
    catalog,
    heads,
)

NAMES = [name for name in catalog if name != "multi-head"]
LOW = [torch.bfloat16, torch.float16]
SIZE = dict(B=2, H=4, N=128, D=32)


TABLES = {
    "bn": torch.ones(SIZE["N"], SIZE["N"], dtype=torch.bool),
    "causal-bn": torch.ones(SIZE["N"], SIZE["N"], dtype=torch.bool).tril(),
    "window-bn": torch.ones(SIZE["N"], SIZE["N"], dtype=torch.bool).triu(-3).tril(3),
}


def folded(q, k, table):
    """The query that makes softmax attention Attention-BN, in float64: each row's statistics by their definition."""
    q, k = q.double(), k.double()
    share = table.double() / table.sum(-1, keepdim=True)
    mu = share @ k
    variance = torch.stack(
        [row @ (k - m[..., None, :]).square() for row, m in zip(share, mu.unbind(-2), strict=True)], -2
    )
    return (q - mu) / (variance + 1e-5)


def exact_bn(q, k, v, table=TABLES["bn"]):
    return F.scaled_dot_product_attention(folded(q, k, table), k, v, table)


def folded_once(q, k, v, table=TABLES["bn"]):
    """SDPA fed the folded query, computed in float64 and rounded once."""
    q = folded(q, k, table).clamp(-torch.finfo(q.dtype).max, torch.finfo(q.dtype).max).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, table)


def value_and_gradients(f, g, *x):
    x = [each.detach().clone().requires_grad_() for each in x]
    y = f(*x)
    return [y.detach(), *torch.autograd.grad(y, x, g.to(y.dtype))]


def errors(f, g, x, expected):
    pairs = zip(value_and_gradients(f, g, *x), expected, strict=True)
    return np.array([((ours.double() - right).norm() / right.norm()).item() for ours, right in pairs])


def draw(dtype, mean=0.0, size=1.0, seed=0):
    torch.manual_seed(seed)
    B, H, N, D = SIZE.values()
    shift = mean * torch.randn(1, H, 1, D).double()
    q, k, v, g = torch.randn(4, B, H, N, D).double()
    return [x.to(dtype) for x in (size * q + shift, k + shift, v)], g


def ratio_to_one_rounding(name, dtype, mean, size, scale=1, seed=0):
    """Errors of Attention-BN, relative to those of its exact query rounded once: of the value and three gradients."""
    x, g = draw(dtype, mean, size, seed)
    table = TABLES[name][:, : SIZE["N"] // scale]

    def pooled(f):
        return lambda q, k, v: f(q, *(z.unflatten(-2, (-1, scale)).mean(-2) for z in (k, v)), table)

    expected = value_and_gradients(pooled(exact_bn), g, *(each.double() for each in x))
    ours = errors(lambda *x: torch_impl.attention(replace(catalog[name], scale=scale), *x), g, x, expected)
    return ours / errors(pooled(folded_once), g, x, expected)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("mean", [0, 1, 10])
@pytest.mark.parametrize("size", [1, 4, 15])  # logits up to +-100
@pytest.mark.parametrize("scale", [1, 2, 8])
def test_attention_bn_is_as_exact_as_its_query_rounded_once(dtype, mean, size, scale):
    ratio = ratio_to_one_rounding("bn", dtype, mean, size, scale)
    assert (ratio <= 1.2).all(), ratio


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("mean", [0, 1, 10])
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("name", ["causal-bn", "window-bn"])
def test_so_is_that_of_queries_with_their_own_statistics(name, dtype, mean, size):
    """The median of five draws: a query that sees few keys has a long folded query, whose last bit decides an error."""
    ratios = [ratio_to_one_rounding(name, dtype, mean, size, seed=seed) for seed in range(5)]
    assert (np.median(ratios, axis=0) <= 1.2).all(), ratios


SINGLE = [(torch.float32, name) for name in ("softmax", "bn", "sh", "linear")]


@pytest.mark.parametrize("dtype, name", [*itertools.product(LOW, ("softmax", "bn", "sh", "linear")), *SINGLE])
def test_errors_are_at_most_twice_those_of_softmax(dtype, name):
    x, g = draw(dtype)
    doubles = [each.double() for each in x]

    def ours(*x):
        return torch_impl.attention(heads(name, SIZE["H"]), *x)

    right = value_and_gradients(F.scaled_dot_product_attention, g, *doubles)
    softmax = errors(F.scaled_dot_product_attention, g, x, right)
    own = errors(ours, g, x, value_and_gradients(ours, g, *doubles))
    assert (own <= 2 * softmax).all(), own / softmax


def test_float32_keys_keep_their_digits_far_from_zero():
    x, g = draw(torch.float32, mean=100)
    expected = value_and_gradients(exact_bn, g, *(each.double() for each in x))
    assert errors(lambda *x: torch_impl.attention(catalog["bn"], *x), g, x, expected).max() < 5e-5


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("name", NAMES)
def test_autocast(name, dtype):
    x, _ = draw(torch.float32)
    members = heads(name, SIZE["H"])
    expected = torch_impl.attention(members, *x)
    x = [each.requires_grad_() for each in x]
    with torch.autocast(x[0].device.type, dtype):
        f = torch_impl.attention(members, *x)
    f.float().square().sum().backward()
    assert f.dtype == dtype and all(each.grad.isfinite().all() for each in x)
    torch.testing.assert_close(f.float(), expected, atol=16 * torch.finfo(dtype).eps, rtol=0)


def test_autocast_centres_keys_before_it_rounds_them():
    x, _ = draw(torch.float32, mean=10)
    exact = exact_bn(*(each.double() for each in x))

    def error(f):
        return ((f.double() - exact).norm() / exact.norm()).item()

    with torch.autocast(x[0].device.type, torch.bfloat16):
        ours = error(torch_impl.attention(catalog["bn"], *x))
    assert 3 * ours < error(folded_once(*(each.bfloat16() for each in x)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *LOW])
@pytest.mark.parametrize("name", NAMES)
def test_constant_keys(name, dtype):
    """No variance: the folded query is 1e5 times longer, more than float16 can hold."""
    torch.manual_seed(237)
    q, v = torch.randn(1, 4, 9, 4), torch.randn(1, 4, 9, 4)
    k = torch.randn(1, 4, 1, 4).expand(1, 4, 9, 4)
    q, k, v = (x.to(dtype).detach().clone().requires_grad_() for x in (q, k, v))
    f = torch_impl.attention(heads(name, 4), q, k, v)
    assert f.isfinite().all()
    if name in ("softmax", "bn", "linear", "linear-bn"):  # equal keys get equal weights
        mean = v.mean(-2, keepdim=True).expand(v.shape)
        torch.testing.assert_close(f, mean, atol=2 * torch.finfo(dtype).eps, rtol=2 * torch.finfo(dtype).eps)
    f.float().sum().backward()
    for x in (q, k, v):
        assert not x.grad.isnan().any()
        assert dtype == torch.float16 or x.grad.isfinite().all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "name", [*NAMES, Primal(EluPlusOne(), support=Causal()), Primal(Gaussian(), support=Window(2))]
)
@pytest.mark.parametrize("N", [1, 2, 9])
def test_few_tokens_and_all_padded(name, N, masked):
    """Row 1 has no real key at all: its output is zero, and no gradient is NaN."""
    x = [torch.randn(2, 4, N, 3, dtype=torch.double, requires_grad=True) for _ in range(3)]
    key_mask = torch.tensor([[True] * N, [False] * N]) if masked else None
    f = torch_impl.attention(heads(name, 4), *x, key_mask)
    f.square().sum().backward()
    assert f.isfinite().all() and all(each.grad.isfinite().all() for each in x)
    if masked:
        assert (f[1] == 0).all() and all((each.grad[1] == 0).all() for each in x)
        assert (f[0] != 0).any()
    if N == 1 and not masked:
        torch.testing.assert_close(f, x[2])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_padded_is_never_looked_at(name):
    q, k, v = torch.randn(3, 2, 4, 9, 3, dtype=torch.double)
    key_mask = torch.arange(9).expand(2, -1) < 6
    expected = torch_impl.attention(heads(name, 4), q, k, v, key_mask)
    k[..., 6:, :], v[..., 6:, :] = float("nan"), float("inf")
    torch.testing.assert_close(torch_impl.attention(heads(name, 4), q, k, v, key_mask), expected)


@pytest.mark.parametrize("name", NAMES)
def test_layouts(name):
    """Strides of any kind, no batch at all, and axes that broadcast."""
    members = heads(name, 4)
    q, k, v = torch.randn(3, 2, 9, 4, 3).double().transpose(-2, -3)
    expected = torch_impl.attention(members, *(x.contiguous() for x in (q, k, v)))
    torch.testing.assert_close(torch_impl.attention(members, q, k, v), expected)
    reversed_axes = [x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0) for x in (q, k, v)]
    torch.testing.assert_close(torch_impl.attention(members, *reversed_axes), expected)
    x = torch.randn(0, 4, 9, 3, requires_grad=True)
    f = torch_impl.attention(members, x, x, x)
    f.sum().backward()
    assert f.shape == x.shape
    shared_keys = torch_impl.attention(members, q[None], k[:1], v[:1])
    assert shared_keys.shape == (1, 2, 4, 9, 3)
    torch.testing.assert_close(shared_keys[0, :1], expected[:1])
    torch.testing.assert_close(torch_impl.attention(members, q[0], k[0], v[0]), expected[0])


@pytest.mark.parametrize("scale", [2, 4, 100])
@pytest.mark.parametrize(
    "primal", [Primal(), Primal(EluPlusOne()), Primal(transform=BatchNorm()), Primal(support=Causal())]
)
def test_short_last_pool_and_scale_beyond_N(primal, scale):
    q, k, v = torch.randn(3, 9, 3).double()
    groups = [slice(i, i + scale) for i in range(0, 9, scale)]
    means = [torch.stack([x[g].mean(0) for g in groups]) for x in (k, v)]
    f = torch_impl.attention(replace(primal, scale=scale), q, k, v)
    everything = replace(primal, support=Everything())  # which the last query sees
    torch.testing.assert_close(f[8:], torch_impl.attention(everything, q[8:], *means))


@pytest.mark.parametrize(
    "primal", [Primal(EluPlusOne()), Primal(EluPlusOne(), support=Causal()), Primal(Gaussian())], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_underflows(primal, dtype):
    """Features of exp(-800) vanish as numbers, even in float64, but not as logarithms."""
    k = torch.tensor([[-800.0, -900.0], [-801.0, -905.0], [-799.0, -2000.0], [5.0, -700.0]], dtype=dtype)
    k = torch.cat([k, k.flip(0)] * 40).requires_grad_()
    v = torch.randn(320, 2, dtype=dtype, requires_grad=True)
    f = torch_impl.attention(primal, k, k, v)
    f.sum().backward()
    assert f.isfinite().all() and k.grad.isfinite().all()
    expected = primal_dual.attention(primal, *(x.detach().double().cpu().numpy() for x in (k, k, v)))
    np.testing.assert_allclose(
        f.detach().double().cpu().numpy(), expected, atol=1e-3 if dtype == torch.float32 else 1e-9
    )


@pytest.mark.parametrize("support", [Window(1), Causal()])
@pytest.mark.parametrize("kernel", [RandomFeatures(53, 0), EluPlusOne()])
def test_a_key_that_a_query_does_not_see_takes_it_no_digits(kernel, support):
    """In float32, the kernel of the first two keys vanishes beside that of the third, which the first queries hide."""
    q, v = torch.randn(2, 29, 5)
    k = torch.randn(29, 5)
    k[:3] = (
        torch.tensor([[33.0], [34.0], [0.0]])
        if kernel == RandomFeatures(53, 0)
        else torch.tensor([[-150], [-149], [9]])
    )
    primal = Primal(kernel, support=support)
    expected = primal_dual.attention(primal, *(x.double().cpu().numpy() for x in (q, k, v)))
    f = torch_impl.attention(primal, q, k, v)
    np.testing.assert_allclose(f.cpu().numpy(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("number", [torch.finfo(torch.float32).min, -70.0])
def test_a_low_number_added_to_the_logits_hides_no_key(number):
    """The first queries see only keys that have it: it cancels, or leaves equal weights where it takes all digits."""
    q, k, v = torch.randn(3, 150, 4)
    mask = torch.zeros(1, 150)
    mask[:, :100] = number
    primal = Primal(EluPlusOne(), support=Causal())
    f = torch_impl.attention(primal, q, k, v, attn_mask=mask)
    means = v.cumsum(0) / torch.arange(1, 151)[:, None]
    expected = torch_impl.attention(primal, q, k, v) if number == -70 else means
    torch.testing.assert_close(f[:100], expected[:100], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(f[100:], torch_impl.attention(primal, q[100:], k[100:], v[100:]))


@pytest.mark.parametrize("support", [Window(3), Causal(), Everything()])
@pytest.mark.parametrize("kernel", [Gaussian(), EluPlusOne()])
def test_tokens_far_from_zero_keep_their_digits_beside_padding(kernel, support):
    torch.manual_seed(0)
    shift = 1e4 if kernel == Gaussian() else -800.0
    q, k, v = torch.randn(3, 50, 8).double()
    key_mask = torch.arange(50) < 45
    expected = primal_dual.attention(
        Primal(kernel, support=support),
        *(x.cpu().numpy() for x in (q + shift, k + shift, v)),
        key_mask.cpu().numpy(),
        query_mask=key_mask.cpu().numpy(),
    )
    f = torch_impl.attention(Primal(kernel, support=support), q + shift, k + shift, v, key_mask)
    np.testing.assert_allclose(f[:45].cpu().numpy(), expected[:45], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("name", NAMES)
def test_low_precision_of_every_name(name, dtype):
    x, _ = draw(dtype)
    members = heads(name, SIZE["H"])
    expected = torch_impl.attention(members, *(each.double() for each in x))
    f = torch_impl.attention(members, *x)
    assert f.dtype == dtype
    torch.testing.assert_close(f.double(), expected, atol=16 * torch.finfo(dtype).eps, rtol=0)


def test_window_larger_than_everything_and_heads_out_of_order():
    q, k, v = torch.randn(3, 2, 3, 9, 4).double()
    wide = heads(Primal(support=Window(50)), 3)
    torch.testing.assert_close(torch_impl.attention(wide, q, k, v), torch_impl.attention(heads("softmax", 3), q, k, v))
    mixed = Heads(Primal(scale=2), Primal(), Primal(scale=2))
    f = torch_impl.attention(mixed, q, k, v)
    for s, primal in enumerate(mixed):
        torch.testing.assert_close(f[:, s], torch_impl.attention(primal, q[:, s], k[:, s], v[:, s]))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_vectors_of_any_length_become_unit_vectors(size):
    """In float32, whose squares would overflow or underflow; in NumPy, in float64, at their sixth power."""
    x = torch.randn(7, 5)
    expected = UnitNorm().fit(None, None)(x)
    torch.testing.assert_close(UnitNorm().fit(None, None)(x * size), expected)
    in_numpy = UnitNorm().fit(None, None)(x.double().cpu().numpy() * size * np.float64(size) ** 5)
    np.testing.assert_allclose(in_numpy, expected.cpu(), rtol=1e-5)
