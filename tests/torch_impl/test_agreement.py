"""A part that is another in torch than in NumPy is neither certified nor trained."""

from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
import pytest
import torch

import torch_impl
from primal_dual import BatchNorm, EluPlusOne, Heads, Mask, Primal, attention, certify
from torch_impl.own_parts import expect_agreement
from torch_impl.training.recipes.benchmarks import recipe
from torch_impl.training.runs.trainer import train


@dataclass(frozen=True)
class Centred:
    """A mean of the real keys in NumPy; in torch, padding is taken in."""

    def fit(self, keys, valid):
        weight = (valid / valid.sum(-1)[..., None])[..., None, :]
        return lambda x: x - weight @ keys


torch_impl.register(Centred)(lambda transform, keys, valid: lambda x: x - keys.mean(-2, keepdim=True))


@dataclass(frozen=True)
class Scaled:
    """Its torch version has another scale."""

    def log_gram(self, x, y):
        return x @ anp.swapaxes(y, -1, -2) / 2


torch_impl.register(Scaled)(lambda kernel, x, y: x @ y.mT / 3)


@dataclass(frozen=True)
class Tempered:
    """Its features are those of another kernel."""

    def feature_count(self, dimension):
        return dimension

    def features(self, x):
        return EluPlusOne().features(x)

    def log_features(self, x):
        return EluPlusOne().log_features(x)

    def log_gram(self, x, y):
        return 2 * EluPlusOne().log_gram(x, y)


torch_impl.register(Tempered)(Tempered.log_gram)


@dataclass(frozen=True)
class Positive:
    """It takes positive numbers alone."""

    def log_gram(self, x, y):
        return anp.log(x @ anp.swapaxes(y, -1, -2))


torch_impl.register(Positive)(lambda kernel, x, y: (x @ y.mT).log())

WRONG = Primal(Scaled()), Primal(transform=Centred()), Primal(Tempered()), Heads(Primal(), Primal(Scaled(), scale=2))


@pytest.mark.parametrize("primal", WRONG)
def test_a_part_that_is_another_in_torch_is_refused(primal, tmp_path):
    layer, x = torch_impl.MultiheadAttention(8, 2, primal=primal), torch.randn(5, 1, 8)
    with pytest.raises(ValueError, match=r"the same attention in torch and in NumPy.*; got one that is off by"):
        torch_impl.certify_module(layer, (x, x, x))
    tiny = recipe("digits", epochs=1, layers=1, width=8, num_heads=2)
    with pytest.raises(ValueError, match="expected the same attention in torch and in NumPy"):
        train(tiny, primal, 0, tiny.load(None, lambda line: None), tmp_path)
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class Again:
    def log_gram(self, x, y):
        return x @ anp.swapaxes(y, -1, -2)


def test_a_version_that_is_registered_later_is_tried_anew():
    torch_impl.register(Again)(lambda kernel, x, y: x @ y.mT)
    expect_agreement([Primal(Again())], 4)
    torch_impl.register(Again)(lambda kernel, x, y: x @ y.mT / 3)
    with pytest.raises(ValueError, match="the same attention in torch and in NumPy"):
        expect_agreement([Primal(Again())], 4)


def test_parts_that_are_the_same_pass():
    expect_agreement([Primal(Positive()), Primal(Positive(), support=Mask(np.ones((3, 3), bool)))], 4)


@dataclass(frozen=True)
class ByShape:
    def sees(self, i, j):
        shape = np.broadcast_shapes(np.shape(i), np.shape(j))
        return (np.random.default_rng(0).random(shape) < 0.5) | (i == j)


def test_a_support_that_changes_with_the_call_is_refused():
    x = np.random.default_rng(0).standard_normal((9, 3))
    for call in (lambda p: attention(p, x, x, x), lambda p: certify(p, x, x)):
        with pytest.raises(ValueError, match="sees: expected the same of i and j in every call"):
            call(Primal(support=ByShape()))


@dataclass(frozen=True)
class ByPosition:
    """Each token is turned by an angle of its own, as rotary positions do."""

    def fit(self, keys, valid):
        return lambda x: x * anp.cos(anp.arange(x.shape[-2]))[:, None]


torch_impl.register(ByPosition)(lambda transform, keys, valid: lambda x: x * torch.arange(x.shape[-2])[:, None].cos())
torch_impl.register(ByShape)(lambda support, i, j: i >= j)


@pytest.mark.parametrize("primal", [Primal(transform=ByPosition()), Primal(support=ByShape())], ids=str)
def test_what_numpy_refuses_for_any_keys_is_not_trained(primal, tmp_path):
    tiny = recipe("digits", epochs=1, layers=1, width=8, num_heads=2)
    with pytest.raises(ValueError, match=r"T to act on each token by itself|the same of i and j in every call"):
        train(tiny, primal, 0, tiny.load(None, lambda line: None), tmp_path)
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class Logarithm:
    def fit(self, keys, valid):
        return lambda x: anp.log(x)


torch_impl.register(Logarithm)(lambda transform, keys, valid: lambda x: x.log())


def test_a_transform_of_positive_numbers_passes():
    expect_agreement([Primal(transform=(Logarithm(), BatchNorm()))], 4)


@dataclass(frozen=True)
class Learned:
    scale: object

    def log_gram(self, x, y):
        return self.scale * (x @ y.mT)


def test_parameters_of_torch_are_no_part_of_a_primal():
    for scale in (torch.nn.Parameter(torch.ones(())), torch.ones(2), torch.nn.Linear(1, 1)):
        with pytest.raises(ValueError, match="expected parts of plain numbers, which are not learned; got Learned"):
            Primal(Learned(scale))
