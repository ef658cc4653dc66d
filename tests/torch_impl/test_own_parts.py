"""Parts that a user writes, in torch: as in NumPy, or refused."""

from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
import pytest
import torch

import primal_dual
import torch_impl
from primal_dual import BatchNorm, Causal, Everything, Primal, Strided

X, Y = np.random.default_rng(0).standard_normal((2, 2, 12, 3))
VALID = np.arange(12) < np.array([[12], [7]])


@dataclass(frozen=True)
class UnitLength:
    """Not defined at zero, which padding is at first."""

    independent_of_keys = True

    def fit(self, keys, valid):
        return lambda x: x / (x**2).sum(-1)[..., None] ** 0.5


torch_impl.register(UnitLength)(UnitLength.fit)


@pytest.mark.parametrize("support", [Everything(), Causal(), Strided(2)], ids=str)
@pytest.mark.parametrize("transform", [UnitLength(), (UnitLength(), BatchNorm(eps=0.1))], ids=str)
@pytest.mark.parametrize("scale", [1, 2])
def test_a_transform_that_is_not_defined_at_zero_is_never_taken_of_padding(support, transform, scale):
    primal = Primal(transform=transform, support=support, scale=scale)
    expected = primal_dual.attention(primal, X, X, Y, VALID)
    x = torch.tensor(X, requires_grad=True)
    f = torch_impl.attention(primal, x, x, torch.tensor(Y), torch.tensor(VALID))
    np.testing.assert_allclose(f.detach().cpu(), expected, rtol=1e-10, atol=1e-12)
    assert torch.autograd.grad(f.sum(), x)[0].isfinite().all()


@dataclass(frozen=True)
class Whitening:
    """torch has no Cholesky factor in half precision."""

    def fit(self, keys, valid):
        raise NotImplementedError


@torch_impl.register(Whitening)
def whiten(transform, keys, valid):
    L = torch.linalg.cholesky(keys.mT @ keys / keys.shape[-2])
    return lambda x: torch.linalg.solve_triangular(L, x.mT, upper=False).mT


@pytest.mark.parametrize("support", [Everything(), Strided(2)], ids=str)
def test_a_transform_has_float32_in_half_precision_too(support):
    primal, x = Primal(transform=(Whitening(), BatchNorm())), torch.tensor(X).bfloat16()
    f = torch_impl.attention(primal, x, x, x)
    exact = torch_impl.attention(primal, *[x.float()] * 3)
    assert f.dtype == torch.bfloat16 and (f.float() - exact).abs().max() < 0.01 * exact.abs().max()


@dataclass(frozen=True)
class Softplus:
    """Positive features, by NumPy alone."""

    def feature_count(self, dimension):
        return dimension

    def features(self, x):
        return anp.logaddexp(0.0, x)

    def log_features(self, x):
        return anp.log(self.features(x))

    def log_gram(self, x, y):
        return anp.log(self.features(x) @ anp.swapaxes(self.features(y), -1, -2))


@torch_impl.register(Softplus)
def log_gram(kernel, x, y):
    softplus = torch.nn.functional.softplus
    return (softplus(x) @ softplus(y).mT).log()


def test_an_instance_is_no_class_of_parts():
    with pytest.raises(ValueError, match=r"register: expected the class of a part, such as Gaussian; got Softplus\(\)"):
        torch_impl.register(Softplus())


def test_a_kernel_whose_features_are_for_numpy_alone_can_be_trained():
    x = torch.tensor(X, requires_grad=True)
    f = torch_impl.attention(Primal(Softplus()), x, x, torch.tensor(Y))
    np.testing.assert_allclose(f.detach().cpu(), primal_dual.attention(Primal(Softplus()), X, X, Y), rtol=1e-10)
    assert torch.autograd.grad(f.sum(), x)[0].isfinite().all()


@dataclass(frozen=True)
class Numbers:
    def sees(self, i, j):
        return (j <= i) * 1.0


torch_impl.register(Numbers)(Numbers.sees)


def test_a_support_of_numbers_is_refused():
    """They would be added to the logits."""
    x = torch.tensor(X)
    with pytest.raises(ValueError, match=r"Numbers.*expected sees to return booleans; got torch.float"):
        torch_impl.attention(Primal(support=Numbers()), x, x, x)


@dataclass(frozen=True)
class Fixed:
    def fit(self, keys, valid):
        return lambda x: keys


torch_impl.register(Fixed)(Fixed.fit)


def test_a_transform_with_another_number_of_tokens_is_refused():
    x = torch.tensor(X)
    with pytest.raises(ValueError, match=r"Fixed.*expected T x \(\.\.\., 5, D\); got \(2, 12, 3\)"):
        torch_impl.attention(Primal(transform=Fixed()), x[:, :5], x, x)
