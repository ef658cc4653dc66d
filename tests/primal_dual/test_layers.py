import numpy as np
import pytest

from primal_dual import (
    Convolution,
    Heads,
    Primal,
    UnitNorm,
    attention,
    catalog,
    encoder,
    encoder_params,
    heads,
    self_attention,
)
from primal_dual.classifier import accuracy, digits, train

E, H, N = 4, 2, 7


def layer(seed=0):
    rng = np.random.default_rng(seed)
    return rng, {name: rng.standard_normal((E, E)) for name in ("W_Q", "W_K", "W_V", "W_O")}


@pytest.mark.parametrize("name", catalog)
def test_self_attention_is_heads_projections_and_residual(name):
    rng, params = layer()
    x = rng.standard_normal((3, N, E))
    declared = heads(name, H)
    expected = x.copy()
    for s, primal in enumerate(declared):
        own = slice(s * E // H, (s + 1) * E // H)
        q, k, v = (x @ params[weight][:, own] for weight in ("W_Q", "W_K", "W_V"))
        expected += attention(primal, q, k, v) @ params["W_O"][own]
    np.testing.assert_allclose(self_attention(params, x, declared), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", catalog)
def test_padding_at_the_end_changes_nothing(name):
    """Nor does it where a convolution would mix padded queries into real ones, or would normalise a zero one."""
    rng, params = layer()
    x = rng.standard_normal((2, N, E))
    padded = np.concatenate([x, 100 * rng.standard_normal((2, 5, E))], axis=1)
    valid = np.arange(N + 5) < N
    declared = heads(name, H)
    f = self_attention(params, padded, declared, np.stack([valid, valid]))
    np.testing.assert_allclose(f[:, :N], self_attention(params, x, declared), rtol=1e-10, atol=1e-11)
    weights = encoder_params(rng, features=E, tokens=N + 5, classes=3, heads=H, width=4, layers=2)
    np.testing.assert_allclose(
        encoder(weights, padded, declared, valid), encoder(weights, x, declared), rtol=1e-10, atol=1e-11
    )


def test_convolution_with_unit_norm_and_padding():
    rng, params = layer()
    declared = Primal(transform=(Convolution((0.2, 0.5, 0.3)), catalog["qk-norm"].transform))
    x = np.concatenate([rng.standard_normal((N, E)), np.zeros((5, E))])
    f = self_attention(params, x, declared, np.arange(N + 5) < N)
    np.testing.assert_allclose(f[:N], self_attention(params, x[:N], declared), rtol=1e-12)


def test_tokens_that_are_all_alike_stay_finite():
    weights = encoder_params(np.random.default_rng(0), features=3, tokens=5, classes=2, width=4)
    weights |= {name: 0 * weights[name] for name in ("W_E", "P")}
    assert np.isfinite(encoder(weights, np.ones((5, 3)), Primal())).all()


def test_bad_parameters():
    _, params = layer()
    x = np.ones((N, E))
    for change in ({"W_Q": np.ones((3, E))}, {"W_O": np.ones((3, E))}, {"W_K": np.ones((E, 6))}, {"W_V": np.ones(4)}):
        with pytest.raises(ValueError, match=r"expected .*(with E = 4 and H = 2|a matrix); got"):
            self_attention(params | change, x, heads("softmax", 2))
    with pytest.raises(ValueError, match="W_V"):
        self_attention({name: value for name, value in params.items() if name != "W_V"}, x, Primal())
    with pytest.raises(ValueError, match="H = 3"):
        self_attention(params, x, Heads(Primal(), Primal(), Primal()))
    weights = encoder_params(np.random.default_rng(0), features=E, tokens=3, classes=2)
    with pytest.raises(ValueError, match=r"expected \(..., N <= 3, 4\)"):
        encoder(weights, x, Primal())


def test_a_classifier_learns_the_digits_by_autograd_alone():
    tokens, labels, test_tokens, test_labels = digits()
    assert len(test_labels) == 450
    params = train("softmax", tokens, labels)
    assert accuracy(params, "softmax", test_tokens, test_labels) >= 0.95


def test_parameters_that_are_missing_or_do_not_fit_are_named():
    x = np.random.default_rng(0).standard_normal((5, 3))
    params = encoder_params(np.random.default_rng(0), features=3, tokens=5, classes=2, width=4)
    layer = params["layers"][0]
    for wrong, message in (
        ({name: layer[name] for name in layer if name != "W_1"}, "expected W_1 .*; got {'W_1': None"),
        ({name: layer[name] for name in layer if name != "b_2"}, "expected W_1 .*'b_2': None"),
        (layer | {"b_1": np.zeros(3)}, r"expected W_1 \(E, F\), .* with E = 4; got {'W_1': \(4, 8\), 'b_1': \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder(params | {"layers": [wrong]}, x, Primal())
    with pytest.raises(ValueError, match="heads: expected a whole number >= 1; got 0"):
        encoder_params(np.random.default_rng(0), features=3, tokens=5, classes=2, heads=0)
    with pytest.raises(ValueError, match="x: expected tokens whose variance a float can hold"):
        encoder(params, 1e160 * x, Primal(transform=UnitNorm()))
