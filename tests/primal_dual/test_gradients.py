"""Derivatives by autograd, to second order, in random directions."""

import autograd.numpy as np
import numpy
import pytest
from autograd import value_and_grad
from autograd.test_util import check_grads
from hypothesis import given, settings

from primal_dual import Heads, attention, attention_weights, catalog, encoder, encoder_params, heads, self_attention
from tests.problems import KERNELS, primals, seeds


def check(f, *arguments):
    check_grads(f, tuple(range(len(arguments))), modes=["rev"], order=2)(*arguments)


@given(primals(), seeds)
@settings(max_examples=60)
def test_attention(primal, seed):
    rng = numpy.random.default_rng(seed)
    q, k, v = rng.standard_normal((5, 3)), rng.standard_normal((2, 7, 3)), rng.standard_normal((2, 7, 2))
    valid = rng.random((2, 7)) < 0.8
    valid[:, [0, 3, 5]] = True
    check(lambda q, k, v: np.arcsinh(attention(primal, q, k, v, valid)), q, k, v)


@pytest.mark.parametrize("name", catalog)
def test_attention_of_the_catalog(name):
    rng = numpy.random.default_rng(0)
    primal = heads(name, 2)
    q, k, v = rng.standard_normal((2, 5, 4)), rng.standard_normal((2, 7, 4)), rng.standard_normal((2, 7, 3))
    check(lambda q, k, v: attention(primal, q, k, v), q, k, v)
    check(lambda q, k: attention_weights(primal, q, k), q, k)


@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if hasattr(kernel, "features")], ids=str)
def test_features(kernel):
    check(kernel.features, numpy.random.default_rng(0).standard_normal((4, 3)))


@pytest.mark.parametrize("name", ["softmax", "bn+sh", "causal-bn", "conv2d"])
def test_layer_and_encoder(name):
    rng = numpy.random.default_rng(0)
    primal = heads(name, 2)
    params = encoder_params(rng, features=3, tokens=7, classes=2, heads=2, width=4)
    tokens, valid = rng.standard_normal((2, 7, 3)), numpy.array([[True] * 7, [True] * 5 + [False] * 2])
    check(lambda params, tokens: encoder(params, tokens, primal, valid), params, tokens)
    x = rng.standard_normal((2, 7, 4))
    check(lambda params, x: self_attention(params, x, primal, valid), params["layers"][0], x)
    assert isinstance(primal, Heads)


def test_single_precision_and_whole_numbers_become_double():
    rng = numpy.random.default_rng(0)
    q, k, v = (rng.integers(-3, 4, size=(5, 3)) for _ in range(3))
    exact = attention(catalog["bn"], q.astype(float), k, v)
    for kind in (numpy.float32, numpy.float64):
        f, gradient = value_and_grad(lambda q: (attention(catalog["bn"], q, k, v) ** 2).sum())(q.astype(kind))
        assert f == (exact**2).sum() and gradient.dtype == kind
    assert attention(catalog["bn"], q.tolist(), k, v).tolist() == exact.tolist()
