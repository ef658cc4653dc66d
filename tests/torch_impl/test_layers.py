"""Layers of the torch mirror against the NumPy originals."""

import autograd.numpy as anp
import numpy as np
import pytest
import torch
from autograd import grad

import primal_dual
import torch_impl
from primal_dual import catalog, encoder_params, heads


def as_tensors(params):
    if isinstance(params, dict):
        return {name: as_tensors(each) for name, each in params.items()}
    if isinstance(params, list):
        return [as_tensors(each) for each in params]
    return torch.tensor(params, requires_grad=True)


def flat(params):
    """The arrays of an encoder's parameters by name, those of its layers numbered."""
    own = {name: each for name, each in params.items() if name != "layers"}
    return own | {f"{name}_{i}": each for i, layer in enumerate(params["layers"]) for name, each in layer.items()}


@pytest.mark.parametrize("name", catalog)
def test_encoder_equals_numpys(name):
    rng = np.random.default_rng(0)
    params = encoder_params(rng, features=3, tokens=9, classes=4, heads=2, width=6, layers=2)
    tokens, primal = rng.standard_normal((2, 7, 3)), heads(name, 2)
    key_mask = np.arange(7) < np.array([[7], [5]])
    expected = primal_dual.encoder(params, tokens, primal, key_mask)
    mirror = as_tensors(params)
    logits = torch_impl.encoder(mirror, torch.tensor(tokens), primal, torch.tensor(key_mask))
    np.testing.assert_allclose(logits.detach().cpu().numpy(), expected, rtol=1e-10, atol=1e-11)
    logits.square().sum().backward()
    gradients = grad(lambda p: anp.sum(primal_dual.encoder(p, tokens, primal, key_mask) ** 2))(params)
    size = abs(gradients["W_E"]).max()
    ours, theirs = flat(mirror), flat(gradients)
    assert len(ours) == 5 + 2 * 8 and ours.keys() == theirs.keys()
    for name, W in ours.items():
        np.testing.assert_allclose(W.grad.cpu().numpy(), theirs[name], rtol=1e-9, atol=1e-9 * size, err_msg=name)
