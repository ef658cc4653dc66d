"""MultiheadAttention inside torch's transforms of functions, and in a checkpoint."""

from functools import partial

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from tests.torch_impl.drop_in.test_multihead import B, E, L, pair


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated", "ignore:There is a performance drop")  # torch's
@pytest.mark.parametrize("name", ["softmax", "bn+sh", "linear", "window"])
def test_torchs_transforms_of_functions(name):
    _, ours = pair(name, batch_first=True)
    x = torch.randn(3, B, L, E).double()

    def layer(z, need_weights=True):
        return ours(z, z, z, need_weights=need_weights)[0]

    torch.testing.assert_close(torch.func.vmap(layer)(x), torch.stack(list(map(layer, x))))
    keys = torch.randn(3, B, L, E).double()
    crossed = torch.func.vmap(lambda z, k: ours(z, k, k)[0])(x, keys)
    torch.testing.assert_close(crossed, torch.stack([ours(z, k, k)[0] for z, k in zip(x, keys, strict=True)]))
    torch.testing.assert_close(torch.func.vmap(partial(layer, need_weights=False))(x), torch.func.vmap(layer)(x))
    forward, backward = torch.func.jacfwd(layer)(x[0, :1]), torch.func.jacrev(layer)(x[0, :1])
    torch.testing.assert_close(forward, backward)
    with sdpa_kernel(SDPBackend.MATH):
        forward = torch.func.jacfwd(partial(layer, need_weights=False))(x[0, :1])
    torch.testing.assert_close(forward, backward)


def test_a_checkpoint_that_passes_views_of_one_tensor_on_is_self_attention():
    _, ours = pair("conv1d", batch_first=True)
    padding = torch.arange(L).expand(B, -1) >= 3
    gradients = []
    for evaluate in (ours, partial(checkpoint, ours, use_reentrant=True)):
        x = torch.ones(B, L, E, dtype=torch.double).cumsum(1).requires_grad_()
        evaluate(x, x, x, padding)[0][:, :3].square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)
