"""The models of the benchmarks."""

from dataclasses import replace

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from primal_dual import BatchNorm, Heads, catalog, heads
from torch_impl.models.encoders import TimeSeriesEncoder, TokenEncoder
from torch_impl.models.regularisation import Dropout
from torch_impl.models.vision_transformer import VisionTransformer, deit_tiny

NAMES = [name for name in catalog if name != "multi-head"]


TOKENISERS = [
    dict(patch=1),
    dict(patch=5),
    dict(convolutions=1, pooling="attention"),
    dict(convolutions=2, taps=3, patch=2, pooling="mean"),
]


@pytest.mark.parametrize("tokeniser", TOKENISERS, ids=str)
@pytest.mark.parametrize("norm", ["batch", "layer", "pre-layer"])
@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing_even_in_training(name, norm, tokeniser):
    """Batch statistics, too, are those of real tokens; and a token of five steps may have some of them padded."""
    torch.manual_seed(0)
    options = dict(layers=2, width=16, num_heads=4, feedforward=20, dropout=0.0, norm=norm, **tokeniser)
    model = TimeSeriesEncoder(3, 12, 5, name, **options).double()
    x = torch.randn(4, 9, 3).double()
    valid = torch.arange(9) < torch.tensor([[9], [4], [7], [9]])
    padded = torch.cat([x.masked_fill(~valid[..., None], 7.0), torch.full((4, 3, 3), float("nan")).double()], 1)
    mask = torch.cat([valid, torch.zeros(4, 3, dtype=torch.bool)], 1)
    torch.testing.assert_close(model(padded, mask), model(x, valid))
    model.eval()
    torch.testing.assert_close(model(padded, mask)[0], model(x[:1])[0])
    torch.testing.assert_close(model(padded, mask)[1], model(x[1:2, :4])[0])


def test_a_patch_is_a_token_of_its_steps_side_by_side():
    torch.manual_seed(0)
    options = dict(layers=1, width=16, num_heads=4)
    patched, plain = TimeSeriesEncoder(3, 11, 5, patch=4, **options), TimeSeriesEncoder(12, 3, 5, **options)
    plain.load_state_dict(patched.state_dict())
    x = torch.randn(2, 11, 3)
    by_hand = torch.stack([torch.cat([x, torch.zeros(2, 1, 3)], 1)[:, i : i + 4].flatten(1) for i in (0, 4, 8)], 1)
    torch.testing.assert_close(patched.eval()(x), plain.eval()(by_hand))


def test_a_batch_without_examples_and_one_of_padding_alone():
    model = TimeSeriesEncoder(3, 11, 5, "bn", layers=1, width=8, num_heads=2, norm="layer").eval()
    x = torch.randn(2, 11, 3)
    assert model(x[:0], torch.ones(0, 11, dtype=torch.bool)).shape == (0, 5)
    assert model(x, torch.zeros(2, 11, dtype=torch.bool)).isfinite().all()


def test_dropout_and_errors():
    model = TimeSeriesEncoder(3, 12, 5, width=16, num_heads=4)
    x = torch.randn(4, 12, 3)
    assert not torch.equal(model(x), model(x)) and torch.equal(model.eval()(x), model(x))
    for wrong in (torch.randn(4, 13, 3), torch.randn(4, 12, 2)):
        with pytest.raises(ValueError, match=r"series: expected \(B, N <= 12, 3\); got"):
            model(wrong)
    with pytest.raises(ValueError, match="norm: expected one of batch, layer, pre-layer; got 'group'"):
        TimeSeriesEncoder(3, 12, 5, norm="group")
    with pytest.raises(ValueError, match="patch: expected one time step or more; got 0"):
        TimeSeriesEncoder(3, 12, 5, patch=0)
    with pytest.raises(ValueError, match="taps: expected an odd number; got 4"):
        TimeSeriesEncoder(3, 12, 5, convolutions=1, taps=4)
    with pytest.raises(ValueError, match="pooling: expected one of flatten, mean, attention; got 'max'"):
        TimeSeriesEncoder(3, 12, 5, pooling="max")
    with pytest.raises(ValueError, match="width: expected a multiple of 8 heads; got 12"):
        TimeSeriesEncoder(3, 12, 5, width=12)
    with pytest.raises(ValueError, match="size: expected a multiple of the patch, 16; got 30"):
        VisionTransformer(size=30)
    with pytest.raises(ValueError, match="width: expected a multiple of 4, for 3 convolutions; got 6"):
        VisionTransformer(size=8, patch=1, convolutions=3, width=6)
    with pytest.raises(ValueError, match=r"images: expected \(B, 3, 8, 8\); got \(2, 1, 8, 8\)"):
        VisionTransformer(size=8, patch=4, layers=1)(torch.randn(2, 1, 8, 8))


def test_each_pair_of_convolutions_halves_an_image():
    """A pair reads 3 + 2 * 2 pixels in each direction: a change of the first pixel reaches the first two tokens."""
    options = dict(patch=1, channels=1, layers=1, width=12, num_heads=3)
    for convolutions, rows in ((1, 7), (2, 4), (3, 2)):
        model = VisionTransformer(size=13, convolutions=convolutions, **options).eval()
        assert model.stem(torch.randn(2, 1, 13, 13)).shape == (2, 12, rows, rows)
        assert model.pos_embed.shape == (1, 1 + rows**2, 12) and model(torch.randn(2, 1, 13, 13)).shape == (2, 1000)
    stem = VisionTransformer(size=13, convolutions=1, **options).eval().stem
    image = torch.randn(1, 1, 13, 13)
    changed = image.clone()
    changed[..., 0, 0] += 1
    moved = (stem(changed) != stem(image)).any(1)[0]
    assert moved[:2, :2].all() and moved.sum() == 4


def models_with_betas(name):
    small = dict(layers=2, width=12, num_heads=3, learn_beta=True)
    yield TimeSeriesEncoder(3, 7, 5, name, **small).eval(), torch.randn(2, 7, 3)
    yield TokenEncoder(11, 7, 5, name, **small).eval(), torch.randint(11, (2, 7))
    yield VisionTransformer(name, classes=5, size=6, patch=2, **small).eval(), torch.randn(2, 3, 6, 6)


BETAS = (0.2, 0.5, 0.9)


def betas_of(model):
    return [block.attn.beta if isinstance(model, VisionTransformer) else block.beta for block in model.blocks]


@pytest.mark.parametrize("name", ["bn", "bn+sh"])
def test_heads_learn_the_beta_that_their_primal_has_at_first(name):
    declared = Heads(*(replace(head, transform=BatchNorm(b)) for head, b in zip(heads(name, 3), BETAS, strict=True)))
    torch.manual_seed(0)
    expected = [model(x) for model, x in models_with_betas(declared)]
    torch.manual_seed(0)
    for (model, x), y in zip(models_with_betas(name), expected, strict=True):
        for beta in betas_of(model):
            assert beta.tolist() == [1, 1, 1]
            beta.data.copy_(torch.tensor(BETAS))
        torch.testing.assert_close(model(x), y)
        model(x).square().sum().backward()
        assert all(beta.grad.abs().min() > 0 for beta in betas_of(model))


@pytest.mark.parametrize("name", ["softmax", "sh", "qk-norm"])
def test_heads_without_a_beta_learn_none(name):
    for model, _ in models_with_betas(name):
        assert not any("beta" in path for path, _ in model.named_parameters())


def test_deit_tiny_has_the_published_size_and_names():
    model = deit_tiny()
    assert sum(p.numel() for p in model.parameters()) == 5_717_416
    names = set(model.state_dict())
    block = [
        f"{part}.{w}"
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for w in ("weight", "bias")
    ]
    assert {f"blocks.{i}.{name}" for i in range(12) for name in block} <= names
    outside = {"cls_token", "pos_embed", "patch_embed.proj.weight", "norm.bias", "head.weight"}
    assert outside <= names and len(names) == 12 * 12 + 8


def test_forward_equals_hugging_faces_on_shared_weights():
    torch.manual_seed(0)
    sizes = dict(image_size=16, patch_size=4, hidden_size=24, num_hidden_layers=2, num_attention_heads=3)
    theirs = ViTForImageClassification(
        ViTConfig(**sizes, intermediate_size=96, num_labels=7, layer_norm_eps=1e-6)
    ).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.3)
    ours = VisionTransformer(classes=7, size=16, patch=4, layers=2, width=24, num_heads=3).eval()
    with torch.no_grad():
        state = {name: p for name, p in theirs.state_dict().items()}
        embeddings = "vit.embeddings."
        new = {
            "cls_token": state[embeddings + "cls_token"],
            "pos_embed": state[embeddings + "position_embeddings"],
            "patch_embed.proj.weight": state[embeddings + "patch_embeddings.projection.weight"],
            "patch_embed.proj.bias": state[embeddings + "patch_embeddings.projection.bias"],
        }
        for w in ("weight", "bias"):
            new |= {f"norm.{w}": state[f"vit.layernorm.{w}"], f"head.{w}": state[f"classifier.{w}"]}
            for i in range(2):
                a = next(name for name in state if f".{i}." in name).split(f".{i}.")[0] + f".{i}."
                qkv = torch.cat([state[f"{a}attention.{x}_proj.{w}"] for x in "qkv"])
                new |= {f"blocks.{i}.attn.qkv.{w}": qkv, f"blocks.{i}.attn.proj.{w}": state[f"{a}attention.o_proj.{w}"]}
                new |= {f"blocks.{i}.norm1.{w}": state[f"{a}layernorm_before.{w}"]}
                new |= {f"blocks.{i}.norm2.{w}": state[f"{a}layernorm_after.{w}"]}
                new |= {f"blocks.{i}.mlp.{fc}.{w}": state[f"{a}mlp.{fc}.{w}"] for fc in ("fc1", "fc2")}
    ours.load_state_dict(new)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(ours(x), theirs(x).logits, rtol=1e-4, atol=1e-4)


def test_stochastic_depth_keeps_the_mean():
    torch.manual_seed(0)
    model = VisionTransformer(classes=4, size=8, patch=4, layers=2, width=12, num_heads=3, stochastic_depth=0.5)
    block, x = model.blocks[1], torch.randn(1, 5, 12).expand(4000, -1, -1)
    branch = block.attn(x)
    kept = block._kept(branch)
    assert (kept.flatten(1) == 0).all(1).float().mean().item() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(kept.mean(0), branch[0], atol=0.05, rtol=0.1)
    assert torch.equal(model.eval().blocks[1]._kept(branch), branch)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_examples_that_are_mapped_over_have_dropout_of_their_own():
    x = torch.ones(2, 1000)
    kept = torch.func.vmap(Dropout(0.5), randomness="different")(x) != 0
    assert (kept.double().mean(1) - 0.5).abs().max() < 0.1 and not torch.equal(*kept)


def test_dropout_keeps_its_share_and_the_mean():
    torch.manual_seed(0)
    x = torch.ones(1000, 1001)
    kept, rate = Dropout(0.3)(x), 77 / 256 if x.device.type == "cpu" else 0.3
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 1 / (1 - rate)]))
    assert (kept == 0).float().mean().item() == pytest.approx(rate, abs=0.002)
    for axis in (0, 1):
        assert (kept == 0).float().mean(axis).std().item() == pytest.approx(
            (0.21 / 1000) ** 0.5, rel=0.1
        )  # independent
    assert torch.equal(Dropout(0.3).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(1.0)(x), 0 * x)
