"""How the mirror evaluates: derivatives, fused kernels, memory, blocks, dropout, and plain products for few tokens."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import primal_dual
import torch_impl
from primal_dual import (
    BatchNorm,
    Causal,
    EluPlusOne,
    Everything,
    Exponential,
    Gaussian,
    Identity,
    Primal,
    Window,
    catalog,
    heads,
)
from tests.problems import tensors
from torch_impl.analysis.cost import LiveMemory
from torch_impl.fast import blockwise, softmax

FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]


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
    monkeypatch.setattr("torch_impl.fast.blockwise.LARGEST_BLOCK", 2**14)

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
    monkeypatch.setattr("torch_impl.fast.blockwise.LARGEST_BLOCK", 200)
    blocks = torch_impl.attention(primal, *x)
    torch.testing.assert_close(blocks, whole, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(blocks.square().sum(), x), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_checkpoint_is_told_the_device_of_its_random_numbers(monkeypatch):
    """torch keeps the random state of the devices that a checkpoint's tensors are on, besides that of the CPU."""
    checkpoint, devices = blockwise.checkpoint, []

    def record(function, *arguments, **options):
        devices.append({x.device for x in arguments if isinstance(x, torch.Tensor)})
        return checkpoint(function, *arguments, **options)

    monkeypatch.setattr(blockwise, "checkpoint", record)
    monkeypatch.setattr(blockwise, "LARGEST_BLOCK", 200)
    q, k, v = torch.randn(3, 2, 13, 4)
    torch_impl.attention(Primal(Gaussian()), q, k, v, dropout_p=0.3)
    assert len(devices) > 1 and all(each == {q.device} for each in devices)


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
    products = softmax._short_softmax
    monkeypatch.setattr(softmax, "_short_softmax", lambda *each: calls.append(1) or products(*each))
    for short in (0, 32):
        monkeypatch.setattr(softmax, "SHORT", short)
        f = torch_impl.attention(heads(name, 2), *x, **options)
        found.append((f, *torch.autograd.grad(f, x, g)))
        assert not calls or short
    assert bool(calls) == (
        name in ("softmax", "bn", "sh", "bn+sh", "conv1d", "conv2d", "qk-norm", "multi-head", "strided")
    )
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("transform", [Identity(), BatchNorm(eps=1e-2)], ids=str)
@pytest.mark.parametrize("kernel", [Exponential(), EluPlusOne(), Gaussian()], ids=str)
@pytest.mark.parametrize(("M", "N"), [(32, 40), (40, 32), (70, 75), (5, 90)])
def test_windows_where_queries_and_keys_differ_in_number(M, N, kernel, transform):
    """The last queries see keys beyond the last block of queries."""
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((M, 4)), rng.standard_normal((N, 4)), rng.standard_normal((N, 3))
    for radius in (0, 3, 11):
        primal = Primal(kernel, transform=transform, support=Window(max(radius, M - N)))
        f = torch_impl.attention(primal, *map(torch.tensor, (q, k, v)))
        np.testing.assert_allclose(f.cpu(), primal_dual.attention(primal, q, k, v), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("transform", [Identity(), BatchNorm()], ids=str)
@pytest.mark.parametrize("is_causal", [False, True])
def test_a_window_wider_than_the_sequence_costs_no_more_than_the_sequence(transform, is_causal):
    q, k, v = torch.randn(3, 20, 4).double()
    primal = Primal(transform=transform, support=Window(10**9))
    everything = replace(primal, support=Causal() if is_causal else Everything())
    f = torch_impl.attention(primal, q, k, v, is_causal=is_causal)
    torch.testing.assert_close(f, torch_impl.attention(everything, q, k, v), rtol=1e-12, atol=1e-12)
