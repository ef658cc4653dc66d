"""The torch mirror equals the NumPy twin, values and gradients, for every composition of parts."""

import inspect
from dataclasses import dataclass, replace

import autograd.numpy as anp
import numpy as np
import pytest
import torch
from autograd import grad
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

import primal_dual
import torch_impl
from primal_dual import (
    BatchNorm,
    Causal,
    Convolution,
    EluPlusOne,
    Exponential,
    Gaussian,
    Heads,
    Primal,
    UnitNorm,
    Window,
    attention,
    attention_weights,
    catalog,
    heads,
    kernels,
    supports,
    transforms,
)
from tests.problems import primals, random_mask, seeds
from torch_impl import expansion
from torch_impl.bench import LiveMemory
from torch_impl.registry import registered

FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
SIZES = st.sampled_from((1, 2, 5, 7, 11))


def random_problem(seed, lead, M, N, D, Dv, masked):
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((*lead, *shape)) for shape in ((M, D), (N, D), (N, Dv)))
    return rng, q, k, v, rng.random((*lead, N)) < 0.7 if masked else None


def tensors(*arrays):
    return [None if x is None else torch.tensor(x, requires_grad=x.dtype == float) for x in arrays]


def numpy_value_and_gradients(primal, q, k, v, key_mask, g, **options):
    """None where the NumPy twin refuses: a query without a key, or h near zero."""
    try:
        f = attention(primal, q, k, v, key_mask, **options)
    except ValueError as error:
        assert "sees no key" in str(error) or "near zero" in str(error) or "real key" in str(error)
        return None
    return f, [grad(lambda *x: anp.sum(g * attention(primal, *x, key_mask, **options)), i)(q, k, v) for i in range(3)]


def assert_equal(primal, q, k, v, key_mask, seed, **options):
    shape = (*q.shape[:-1], v.shape[-1])
    g = np.random.default_rng(seed).standard_normal(shape)
    expected = numpy_value_and_gradients(primal, q, k, v, key_mask, g, **options)
    if expected is None:
        return
    q, k, v, key_mask = tensors(q, k, v, key_mask)
    f = torch_impl.attention(primal, q, k, v, key_mask, **{n: torch.tensor(x) for n, x in options.items()})
    real = options.get("query_mask", np.ones(shape[-2], bool))
    rows = np.broadcast_to(real[..., None], shape)
    np.testing.assert_allclose(
        f.detach().numpy()[rows], expected[0][rows], rtol=1e-10, atol=1e-10 * abs(v).max().item()
    )
    if not options:
        gradients = torch.autograd.grad(f, (q, k, v), torch.tensor(g))
        size = max(abs(x).max() for x in expected[1])
        for ours, theirs in zip(gradients, expected[1], strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-10, atol=1e-10 * size)


@settings(max_examples=400)
@given(primals(), seeds, st.sampled_from(((), (2,), (2, 3))), SIZES, SIZES, SIZES, SIZES, st.booleans(), st.booleans())
def test_values_and_gradients_equal_numpys(primal, seed, lead, M, N, D, Dv, masked, table):
    rng, q, k, v, key_mask = random_problem(seed, lead, M, N, D, Dv, masked)
    primal = replace(primal, support=random_mask(rng, M, N)) if table else primal
    assert_equal(primal, q, k, v, key_mask, seed)


@settings(max_examples=60)
@given(st.lists(primals(normalizers=st.just("sum")), min_size=1, max_size=4), seeds, st.booleans())
def test_heads_equal_numpys(members, seed, masked):
    members = Heads(*members, members[0])
    _, q, k, v, key_mask = random_problem(seed, (2, len(members)), 7, 7, 3, 2, masked)
    assert_equal(members, q, k, v, None if key_mask is None else key_mask[:, 0], seed)


@given(primals(), seeds)
def test_padded_queries_change_nothing_for_the_others(primal, seed):
    _, q, k, v, key_mask = random_problem(seed, (2,), 7, 7, 3, 2, True)
    key_mask[:, 0] = True
    assert_equal(primal, q, k, v, key_mask, seed, query_mask=key_mask)


@given(primals(), seeds)
def test_weights_equal_numpys(primal, seed):
    _, q, k, _, _ = random_problem(seed, (2,), 5, 7, 3, 2, False)
    try:
        expected = attention_weights(primal, q, k)
    except ValueError as error:
        assert "near zero" in str(error)
        return
    ours = torch_impl.attention_weights(primal, *tensors(q, k)).detach().numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10 * abs(expected).max())


LONG = dict(catalog) | {
    "causal-linear": Primal(EluPlusOne(), support=Causal()),
    "causal-bn+sh": Primal(transform=BatchNorm(), support=Causal(), scale=3),
    "window-linear": Primal(EluPlusOne(), support=Window(3)),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("N", [1, 3, 131, 300])
def test_other_lengths(name, N):
    """Beyond one chunk, one block and one window; and shorter than a pool."""
    members = heads(name if name in catalog else LONG[name], 4)
    _, q, k, v, key_mask = random_problem(N, (1, 4), N, N, 5, 5, True)
    q, k = q * np.linspace(0.3, 3, N)[:, None], k * np.linspace(0.3, 3, N)[:, None]  # chunks of other sizes
    key_mask[..., 0] = True
    if members.primals[0].support == primal_dual.Strided(3):
        key_mask[..., :3] = True
    real = key_mask[:, 0]
    f = torch_impl.attention(members, *tensors(q, k, v, real), query_mask=torch.tensor(real))
    expected = attention(members, q, k, v, real, query_mask=real)
    rows = np.broadcast_to(real[:, None, :, None], expected.shape)
    np.testing.assert_allclose(f.detach().numpy()[rows], expected[rows], rtol=1e-9, atol=1e-10)


def test_every_part_has_a_twin():
    parts = [
        each
        for module in (kernels, transforms, supports)
        for _, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__
    ]
    assert len(parts) == 15 and [part for part in parts if part not in registered()] == []


@dataclass(frozen=True)
class Cauchy:
    def log_gram(self, x, y):
        return -anp.log1p(((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1))


@dataclass(frozen=True)
class Shift:
    by: float

    def fit(self, keys, real):
        return lambda x: x + self.by


@dataclass(frozen=True)
class Odd:
    def sees(self, i, j):
        return (j % 2 == 1) | (i == j)


def test_parts_from_outside(monkeypatch):
    primal = Primal(Cauchy(), transform=(Shift(2.0), BatchNorm()), support=Odd(), scale=2)
    _, q, k, v, _ = random_problem(0, (2,), 5, 7, 3, 2, False)
    for part, missing in ((Primal(Cauchy()), "Cauchy"), (Primal(transform=Shift(1.0)), "Shift")):
        with pytest.raises(ValueError, match=rf"torch twin; add one with torch_impl.register\({missing}\)"):
            torch_impl.attention(part, *tensors(q, k, v))
    monkeypatch.setattr("torch_impl.registry._TWINS", dict(torch_impl.registry._TWINS))

    @torch_impl.register(Cauchy)
    def cauchy(kernel, x, y):
        return -torch.cdist(x, y).square().log1p()

    torch_impl.register(Shift)(Shift.fit)
    torch_impl.register(Odd)(Odd.sees)
    assert_equal(primal, q, k, v, None, 0)


def folded_by_hand(q, k, beta, eps=1e-5):
    mu, variance = k.mean(-2, keepdim=True), k.var(-2, correction=0, keepdim=True)
    return (q - beta * mu) / (variance + eps), k - mu


def test_attention_bn_is_softmax_attention_of_another_query():
    q, k, v = tensors(*np.random.default_rng(0).standard_normal((3, 2, 4, 9, 8)))
    expected = torch.nn.functional.scaled_dot_product_attention(*folded_by_hand(q, k, 0.7), v)
    ours = torch_impl.attention(Primal(transform=BatchNorm(0.7)), q, k, v)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-13)


def test_beta_and_taps_take_the_place_of_the_primals():
    q, k, v = tensors(*np.random.default_rng(0).standard_normal((3, 2, 3, 9, 4)))
    beta, taps = tensors(np.array([0.1, 0.5, 1.0]), np.array([0.1, 0.3, 0.7]))
    primal = Primal(transform=(Convolution((1.0, 0.0, 0.0)), BatchNorm()))
    ours = torch_impl.attention(heads(primal, 3), q, k, v, beta=beta, taps=taps)
    for s in range(3):
        own = Primal(transform=(Convolution((0.1, 0.3, 0.7)), BatchNorm(beta[s].item())))
        torch.testing.assert_close(ours[:, s], torch_impl.attention(own, q[:, s], k[:, s], v[:, s]))
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(ours.square().sum(), (beta, taps)))

    def f(beta, taps):
        return torch_impl.attention(
            heads(primal, 3), q[:1].detach(), k[:1].detach(), v[:1].detach(), beta=beta, taps=taps
        )

    assert torch.autograd.gradcheck(f, (beta, taps))


@settings(max_examples=60)
@given(
    primals(normalizers=st.just("sum"), transforms=st.sampled_from((BatchNorm(0.9), (BatchNorm(0.9), UnitNorm())))),
    seeds,
)
def test_a_beta_for_each_head_is_that_of_its_own_primal(primal, seed):
    q, k, v = tensors(*np.random.default_rng(seed).standard_normal((3, 2, 3, 3, 4)))  # as many heads as tokens

    def with_beta(beta):
        first, *others = primal.transform if isinstance(primal.transform, tuple) else (primal.transform,)
        return replace(primal, transform=(replace(first, beta=beta), *others))

    betas = [0.1, 0.5, 0.9]
    ours = torch_impl.attention(heads(primal, 3), q, k, v, beta=torch.tensor(betas, dtype=torch.double))
    expected = torch_impl.attention(Heads(*map(with_beta, betas)), q, k, v)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-9)


def test_a_mask_may_have_more_axes():
    q, k, v = tensors(*np.random.default_rng(0).standard_normal((3, 6, 4)))
    mask = torch.rand(3, 6, 6) < 0.7
    for name in catalog:
        if name != "multi-head":
            f = torch_impl.attention(catalog[name], q, k, v, attn_mask=mask)
            assert f.shape == (3, 6, 4)
            torch.testing.assert_close(f[1], torch_impl.attention(catalog[name], q, k, v, attn_mask=mask[1]))


def as_support(primal, table):
    return replace(primal, support=primal_dual.Mask(table.numpy()))


@given(primals(supports=st.just(primal_dual.Everything())), seeds)
def test_a_mask_of_the_call_is_a_support(primal, seed):
    if any(isinstance(part, Convolution) for part in transforms.parts(primal.transform)[0]):
        return
    rng, q, k, v, _ = random_problem(seed, (2,), 5, 7, 3, 2, False)
    q, k, v = tensors(q, k, v)
    table = torch.tensor(random_mask(rng, 5, 7).table)
    ours = torch_impl.attention(primal, q, k, v, attn_mask=table)
    torch.testing.assert_close(ours, torch_impl.attention(as_support(primal, table), q, k, v), rtol=1e-10, atol=1e-12)
    hidden = torch.where(table, 0.0, float("-inf")).double()
    torch.testing.assert_close(torch_impl.attention(primal, q, k, v, attn_mask=hidden), ours, rtol=1e-10, atol=1e-12)
    causal = torch_impl.attention(primal, q, k, v, is_causal=True)
    expected = torch_impl.attention(replace(primal, support=Causal()), q, k, v)
    torch.testing.assert_close(causal, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in catalog if "conv" not in name and name != "multi-head"])
def test_masks_intersect_with_the_support(name):
    rng = np.random.default_rng(0)
    primal, N = catalog[name], 9
    q, k, v = tensors(*rng.standard_normal((3, 2, N, 4)))
    key_mask, table = torch.tensor(rng.random((2, N)) < 0.7), torch.tensor(random_mask(rng, N, N).table)
    key_mask[:, 0] = table[:, 0] = True
    f = torch_impl.attention(primal, q, k, v, key_mask, attn_mask=table, is_causal=True)
    positions = np.arange(N)
    for b in range(2):
        seen = (
            torch.tensor(supports.sees(primal.support, positions, N))
            & table
            & key_mask[b]
            & torch.ones(N, N).tril().bool()
        )
        rows = seen.any(-1)
        seen[~rows, 0] = True
        expected = torch_impl.attention(as_support(primal, seen), q[b], k[b], v[b])
        torch.testing.assert_close(f[b][rows], expected[rows], rtol=1e-10, atol=1e-11)
        assert (f[b][~rows] == 0).all()


@pytest.mark.parametrize("name", [name for name in catalog if name != "multi-head"])
def test_one_row_of_a_mask_is_a_key_mask(name):
    rng = np.random.default_rng(0)
    q, k, v = tensors(*rng.standard_normal((3, 2, 9, 4)))
    key_mask = torch.tensor(rng.random((2, 9)) < 0.7)
    expected = torch_impl.attention(catalog[name], q, k, v, key_mask)
    torch.testing.assert_close(torch_impl.attention(catalog[name], q, k, v, attn_mask=key_mask[:, None]), expected)
    floats = torch.where(key_mask, 0.0, float("-inf")).double()[:, None]
    torch.testing.assert_close(torch_impl.attention(catalog[name], q, k, v, attn_mask=floats), expected)


@pytest.mark.parametrize("kernel", [Exponential(), EluPlusOne(), Gaussian(), primal_dual.Taylor(2)])
@pytest.mark.parametrize("support", [primal_dual.Everything(), Window(2), Causal(), primal_dual.Strided(2)])
@pytest.mark.parametrize("rows", [1, 7])
def test_finite_weights_multiply_the_kernel(kernel, support, rows):
    rng = np.random.default_rng(0)
    q, k, v = tensors(*rng.standard_normal((3, 7, 4)))
    log_weight = torch.tensor(rng.standard_normal((rows, 7)))
    ours = torch_impl.attention(Primal(kernel, support=support), q, k, v, attn_mask=log_weight)
    weights = torch_impl.attention_weights(Primal(kernel, support=support), q, k) * log_weight.exp()
    torch.testing.assert_close(ours, weights @ v / weights.sum(-1, keepdim=True), rtol=1e-10, atol=1e-12)


def test_finite_weights_are_averaged_over_a_pool():
    q, k, v = tensors(*np.random.default_rng(0).standard_normal((3, 6, 4)))
    log_weight = torch.tensor([[1.0, 3.0, 0.0, 0.0, -1.0, 1.0]], dtype=torch.double)
    pooled = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.double)
    ours = torch_impl.attention(Primal(scale=2), q, k, v, attn_mask=log_weight)
    k, v = (x.unflatten(0, (3, 2)).mean(1) for x in (k, v))
    torch.testing.assert_close(ours, torch_impl.attention(Primal(), q, k, v, attn_mask=pooled))


@pytest.mark.parametrize("name", catalog)
def test_gradcheck(name):
    x = tensors(*np.random.default_rng(0).standard_normal((3, 1, 4, 7, 2)))
    key_mask = torch.tensor([[True] * 6 + [False]])
    assert torch.autograd.gradcheck(lambda *x: torch_impl.attention(heads(name, 4), *x, key_mask), x)


@pytest.mark.parametrize("name", catalog)
def test_double_backward_on_torchs_math_path(name):
    x = tensors(*np.random.default_rng(0).standard_normal((3, 1, 2, 5, 2)))
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(lambda *x: torch_impl.attention(heads(name, 2), *x), x)


SOFTMAX = [name for name in catalog if name not in ("taylor", "rbf") and "linear" not in name]


@pytest.mark.parametrize("name", [name for name in SOFTMAX if name not in ("window-sh", "causal-sh")])
@pytest.mark.parametrize("masked", [False, True])
def test_exponential_kernels_run_fused(name, masked):
    q, k, v = (torch.randn(2, 4, 150, 8, requires_grad=True) for _ in range(3))
    key_mask = torch.rand(2, 150) < 0.8 if masked else None
    with sdpa_kernel(FUSED):
        torch_impl.attention(heads(name, 4), q, k, v, key_mask).sum().backward()


@pytest.mark.parametrize(
    "primal",
    [
        Primal(support=Window(4)),
        Primal(transform=BatchNorm(), support=Window(4)),
        Primal(Gaussian(), support=Window(4)),
        Primal(support=Window(4), scale=2),
        Primal(support=Causal()),
        Primal(transform=BatchNorm(), support=Causal()),
        Primal(support=Causal(), scale=3),
        Primal(EluPlusOne()),
        Primal(EluPlusOne(), support=Causal()),
        Primal(transform=BatchNorm(), support=Causal(), scale=3),
    ],
    ids=str,
)
def test_memory_is_linear_in_N(primal, monkeypatch):
    monkeypatch.setattr("torch_impl.expansion.BLOCK", 2**14)

    def peak(N):
        q, k, v = (torch.randn(1, 1, N, 8, requires_grad=True) for _ in range(3))
        with LiveMemory() as memory:
            torch_impl.attention(primal, q, k, v).sum().backward()
        return memory.peak

    assert 0 < peak(1024) < 2.3 * peak(512)


@pytest.mark.parametrize(
    "primal",
    [
        Primal(Gaussian()),
        Primal(support=Causal(), scale=2),
        Primal(EluPlusOne(), transform=BatchNorm(), support=Causal()),
    ],
    ids=str,
)
def test_blocks_of_queries_do_not_matter(primal, monkeypatch):
    x = tensors(*np.random.default_rng(0).standard_normal((3, 2, 13, 4)))
    whole = torch_impl.attention(primal, *x)
    gradients = torch.autograd.grad(whole.square().sum(), x)
    monkeypatch.setattr("torch_impl.expansion.BLOCK", 200)
    blocks = torch_impl.attention(primal, *x)
    torch.testing.assert_close(blocks, whole, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(blocks.square().sum(), x), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "primal", [Primal(), Primal(EluPlusOne()), Primal(Gaussian()), Primal(support=Causal(), scale=2)], ids=str
)
def test_dropout_keeps_the_mean(primal):
    torch.manual_seed(0)
    q, k, v = (x[None].expand(4000, 6, 4) for x in torch.randn(3, 6, 4))
    f = torch_impl.attention(primal, q, k, v, dropout_p=0.3)
    torch.testing.assert_close(f.mean(0), torch_impl.attention(primal, q[0], k[0], v[0]), atol=0.08, rtol=0)
    assert f.std(0).max() > 0.1


@pytest.mark.parametrize("name", catalog)
def test_causal_outputs_do_not_know_later_tokens(name):
    q, k, v = tensors(*np.random.default_rng(0).standard_normal((3, 1, 4, 140, 3)))
    f = torch_impl.attention(heads(name, 4), q, k, v, is_causal=True)
    g = torch.autograd.grad(f[..., :100, :].square().sum(), (q, k, v))
    assert all((x[..., 100:, :] == 0).all() and (x[..., :100, :] != 0).any() for x in g)


@pytest.mark.parametrize("name", catalog)
@pytest.mark.parametrize("mask", [None, "keys", "finite"])
def test_plain_products_of_short_sequences(name, mask, monkeypatch):
    """The same values and gradients as fused, also where an example has no key; and they are what runs."""
    torch.manual_seed(0)
    x = [torch.randn(3, 2, 11, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    g = torch.randn(3, 2, 11, 5, dtype=torch.float64)
    options = {}
    if mask == "keys":
        options["key_mask"] = torch.arange(11) < torch.tensor([[11], [4], [0]])
    if mask == "finite":
        options["attn_mask"] = torch.randn(3, 1, 1, 11, dtype=torch.float64)
    found, calls = [], []
    products = expansion._products
    monkeypatch.setattr(expansion, "_products", lambda *each: calls.append(1) or products(*each))
    for short in (0, 32):
        monkeypatch.setattr(expansion, "SHORT", short)
        f = torch_impl.attention(heads(name, 2), *x, **options)
        found.append((f, *torch.autograd.grad(f, x, g)))
        assert not calls or short
    assert bool(calls) == (
        name in ("softmax", "bn", "sh", "bn+sh", "conv1d", "conv2d", "qk-norm", "multi-head", "strided")
    )
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-12, atol=1e-12)
