"""replace_attention keeps all that a module holds, and refuses what it would lose."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from torch_impl import MultiheadAttention
from torch_impl.drop_in import replace_attention
from torch_impl.drop_in.timm import TimmAttention


def model(**options):
    torch.manual_seed(0)
    return nn.Sequential(nn.MultiheadAttention(12, 4, **options)).double()


def output(module, seed=1):
    x = torch.randn(3, 5, 2, 12, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()
    return module[0](*x, need_weights=False)[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: prune.l1_unstructured(layer, "in_proj_weight", 0.3),
        lambda layer: prune.random_unstructured(layer.out_proj, "weight", 0.3),
        lambda layer: prune.remove(prune.l1_unstructured(layer, "in_proj_weight", 0.3), "in_proj_weight"),
        lambda layer: parametrizations.weight_norm(layer, "in_proj_weight"),
        lambda layer: parametrizations.orthogonal(layer.out_proj),
        lambda layer: setattr(layer, "in_proj_bias", None),
        lambda layer: layer.register_buffer("table", torch.ones(3)),
    ],
    ids=["pruned", "pruned output", "pruned for good", "weight norm", "orthogonal output", "no bias", "buffer"],
)
def test_weights_that_are_computed_are_kept(change):
    theirs = model()
    change(theirs[0])
    expected, names = output(theirs), theirs.state_dict().keys()
    ours = replace_attention(theirs, "softmax")
    assert isinstance(ours[0], MultiheadAttention) and ours.state_dict().keys() == names
    torch.testing.assert_close(output(ours), expected)
    output(ours).sum().backward()
    assert all(p.grad is not None for p in ours.parameters())


def test_pruning_goes_on_after_replacement():
    ours = replace_attention(model(), "bn")
    prune.l1_unstructured(ours[0], "in_proj_weight", 0.5)
    before = output(ours)
    with torch.no_grad():
        ours[0].in_proj_weight_orig.mul_(2)
    assert not torch.allclose(output(ours), before)
    prune.remove(ours[0], "in_proj_weight")
    assert (ours[0].in_proj_weight == 0).double().mean() == 0.5


def test_hooks_are_kept_and_can_be_removed():
    theirs, calls = model(), []
    layer = theirs[0]
    handles = [
        layer.register_forward_hook(lambda *_: calls.append("after")),
        layer.register_forward_pre_hook(lambda *_: calls.append("before")),
        layer.register_full_backward_hook(lambda *_: calls.append("backward")),
        layer.register_state_dict_post_hook(lambda *_: calls.append("state")),
    ]
    ours = replace_attention(theirs, "bn")
    output(ours).sum().backward()
    ours.state_dict()
    assert calls == ["before", "after", "backward", "state"]
    for handle in handles:
        handle.remove()
    output(ours).sum().backward()
    ours.state_dict()
    assert len(calls) == 4


def test_a_parametrized_layer_can_be_copied():
    theirs = model()
    parametrizations.weight_norm(theirs[0], "in_proj_weight")
    ours = replace_attention(theirs, "bn")
    torch.testing.assert_close(output(copy.deepcopy(ours)), output(ours))


@pytest.mark.parametrize("learned, primal", [("beta", "bn"), ("taps", "conv1d")])
def test_what_is_learned_of_a_primal_gives_way_to_the_primals_own(learned, primal):
    ours = nn.Sequential(MultiheadAttention(12, 4, primal=primal, **{f"learn_{learned}": True}))
    assert f"0.{learned}" in ours.state_dict()
    replace_attention(ours, primal)
    assert getattr(ours[0], learned) is None and f"0.{learned}" not in ours.state_dict()


class Mine(nn.MultiheadAttention):
    def forward(self, query, key, value, **options):
        return query, None


class MineInTimm(TimmAttention):
    def forward(self, x):
        return x


class OnlyNamed(nn.MultiheadAttention):
    """A subclass that changes nothing of forward."""


@pytest.mark.parametrize("make", [lambda: Mine(12, 4), lambda: MineInTimm(12, 4)], ids=["torch", "timm"])
def test_another_forward_is_refused(make):
    both = nn.ModuleList([nn.MultiheadAttention(12, 4), make()])
    with pytest.raises(ValueError, match=r"with its own forward; got Mine(InTimm)?, whose forward is another"):
        replace_attention(both, "bn")
    assert type(both[0]) is nn.MultiheadAttention


def test_a_forward_that_was_set_on_a_module_is_refused():
    theirs = model()
    theirs[0].forward = functools.partial(theirs[0].forward)
    with pytest.raises(ValueError, match="got MultiheadAttention, whose forward is another"):
        replace_attention(theirs, "bn")


def test_a_subclass_with_torchs_forward_is_replaced():
    named = replace_attention(nn.Sequential(OnlyNamed(12, 4)), "bn")
    assert type(named[0]) is MultiheadAttention


class AttentionPoolLatent(nn.Module):
    """As timm's: an attention of another kind."""

    def forward(self, x):
        return torch.softmax(x @ x.mT, -1) @ x


class CrossAttention(nn.Module):
    """A module around torch's attention."""

    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(12, 4)


def test_an_attention_that_would_stay_is_refused_before_anything_changes():
    both = nn.Sequential(nn.MultiheadAttention(12, 4), AttentionPoolLatent())
    with pytest.raises(ValueError, match=r"expected no attention but torch's, .*; got AttentionPoolLatent"):
        replace_attention(both, "bn")
    assert type(both[0]) is nn.MultiheadAttention


def test_an_attention_around_torchs_is_no_other():
    around = replace_attention(nn.Sequential(CrossAttention()), "bn")
    assert type(around[0].inner) is MultiheadAttention


class ChannelAttention(nn.Module):
    """Weights of channels, which are no tokens."""

    def forward(self, x):
        return x * x.mean(-2, keepdim=True).sigmoid()


def test_what_is_called_an_attention_of_channels_stays():
    both = replace_attention(nn.Sequential(nn.MultiheadAttention(12, 4), ChannelAttention()), "bn")
    assert [type(module) for module in both] == [MultiheadAttention, ChannelAttention]
