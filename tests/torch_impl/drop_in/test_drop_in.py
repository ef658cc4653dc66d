"""Attention of any primal inside models that exist."""

import copy
import io
import pickle
import sys
import types

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    StaticCache,
    ViTConfig,
    ViTModel,
)

import torch_impl
from primal_dual import BatchNorm, Heads, Primal, Window, catalog
from tests.on_device import paused
from torch_impl.drop_in import register_transformers, replace_attention, timm_attention
from torch_impl.drop_in.hugging_face.attention import attention_function
from torch_impl.drop_in.timm import TimmAttention
from torch_impl.recorder import recording

SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20)
CONVOLUTIONS = ("conv1d", "conv2d")


@pytest.fixture(autouse=True)
def registered():
    torch.manual_seed(0)
    register_transformers()


def implementation(name):
    return dict(attn_implementation=f"attention_{name}")


def bert(name, **options):
    options = {**SIZES, **options}
    return BertModel(BertConfig(vocab_size=30, max_position_embeddings=40, **options, **implementation(name))).eval()


def llama(name):
    return LlamaModel(LlamaConfig(vocab_size=30, num_key_value_heads=2, **SIZES, **implementation(name))).eval()


def calls_of(model, *arguments, **options):
    with recording(model) as calls, torch.no_grad():
        result = model(*arguments, **options)
    return result, calls


def hidden(model, *arguments, **options):
    result, calls = calls_of(model, *arguments, **options)
    assert len(calls) == 2
    return result.last_hidden_state


@pytest.mark.parametrize("name", catalog)
def test_padding_changes_nothing_in_bert(name):
    model, ids = bert(name), torch.randint(0, 30, (2, 9))
    padded, mask = torch.randint(0, 30, (2, 13)), torch.arange(13).expand(2, -1) < 9
    padded[:, :9] = ids
    torch.testing.assert_close(hidden(model, padded, attention_mask=mask.long())[:, :9], hidden(model, ids))
    if "causal" not in name:
        assert not torch.allclose(hidden(model, padded)[:, :9], hidden(model, ids))


@pytest.mark.parametrize("name", catalog)
def test_vit(name):
    config = ViTConfig(image_size=16, patch_size=4, **SIZES, **implementation(name))
    model, x = ViTModel(config).eval(), torch.randn(2, 3, 16, 16)
    f = hidden(model, x)
    assert f.shape == (2, 17, 16) and f.isfinite().all()
    theirs = ViTModel(ViTConfig(image_size=16, patch_size=4, **SIZES)).eval()
    theirs.load_state_dict(model.state_dict())
    same = torch.allclose(theirs(x).last_hidden_state, f, atol=1e-5)
    assert same == (name in ("softmax", "multi-head")) or name == "taylor"
    torch.compiler.reset()
    with paused():
        compiled = torch.compile(model, fullgraph=True, backend="eager")(x)
    torch.testing.assert_close(compiled.last_hidden_state, f)


@pytest.mark.parametrize("name", catalog)
def test_a_decoder_is_causal_and_reads_its_cache(name):
    model, ids = llama(name), torch.randint(0, 30, (2, 9))
    f = hidden(model, ids)
    changed = ids.clone()
    changed[:, -1] = (ids[:, -1] + 1) % 30
    torch.testing.assert_close(hidden(model, changed)[:, :-1], f[:, :-1])
    padded = torch.cat([ids, ids[:, :3]], 1)
    mask = (torch.arange(12).expand(2, -1) < 9).long()
    torch.testing.assert_close(hidden(model, padded, attention_mask=mask)[:, :9], f)
    cache = model(ids[:, :6], use_cache=True).past_key_values
    if name in CONVOLUTIONS:
        with pytest.raises(ValueError, match="use_cache=False"):
            model(ids[:, 6:], past_key_values=cache)
    else:
        torch.testing.assert_close(hidden(model, ids[:, 6:], past_key_values=cache), f[:, 6:])


def test_softmax_equals_the_librarys():
    for ours, ids in (
        (bert("softmax"), torch.randint(0, 30, (2, 9))),
        (llama("softmax"), torch.randint(0, 30, (2, 9))),
    ):
        theirs = copy.deepcopy(ours)
        theirs.set_attn_implementation("sdpa")
        mask = (torch.arange(9).expand(2, -1) < torch.tensor([[9], [6]])).long()
        theirs, ours = (model(ids, attention_mask=mask).last_hidden_state[mask.bool()] for model in (theirs, ours))
        torch.testing.assert_close(theirs, ours)


def test_a_mask_of_the_models_own_is_kept():
    """A table that no key mask can say, as booleans or as the library's smallest floats."""
    model, ids = bert("bn"), torch.randint(0, 30, (1, 6))
    table = torch.rand(1, 1, 6, 6) < 0.5
    table[..., 0] = True
    booleans = hidden(model, ids, attention_mask=table)
    floats = torch.zeros(1, 1, 6, 6).masked_fill(~table, torch.finfo(torch.float32).min)
    torch.testing.assert_close(hidden(model, ids, attention_mask=floats), booleans)
    assert not torch.allclose(booleans, hidden(model, ids))


def test_what_has_no_primal_is_refused():
    model, x = bert("bn"), torch.randn(1, 4, 5, 4)
    for option in ("softcap", "position_bias", "s_aux"):
        with pytest.raises(ValueError, match=f"expected no {option}"):
            attention_function("bn", {}, model, x, x, x, None, **{option: 1.0})
    with pytest.raises(ValueError, match=r"expected scaling 1/sqrt\(4\), as kernels have; got 0.3"):
        attention_function("rbf", {}, model, x, x, x, None, scaling=0.3)
    f, _ = attention_function("softmax", {}, model, x, x, x, None, scaling=0.3)
    expected = nn.functional.scaled_dot_product_attention(x, x, x, scale=0.3).transpose(1, 2)
    torch.testing.assert_close(f, expected)


def torch_encoder(norm_first=False, **options):
    layer = nn.TransformerEncoderLayer(16, 4, 20, batch_first=True, norm_first=norm_first, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # of torch's own encoder
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_torchs_fast_path_does_not_run_softmax_instead(padded, norm_first):
    """In eval under no_grad, where torch would call neither our forward nor keep the padding."""
    theirs = torch_encoder(norm_first).eval()
    ours = replace_attention(copy.deepcopy(theirs), "bn")
    same = replace_attention(copy.deepcopy(theirs), "softmax")
    x = torch.randn(2, 9, 16)
    valid = torch.arange(9).expand(2, -1) < (torch.tensor([[9], [6]]) if padded else 9)
    options = dict(src_key_padding_mask=~valid) if padded else {}
    _, calls = calls_of(ours, x, **options)
    assert [name for name, _ in calls] == ["layers.0.self_attn", "layers.1.self_attn"]
    with torch.no_grad():  # without a recording, whose hooks would keep torch's kernel away
        f = ours(x, **options)
    torch.testing.assert_close(f[valid], ours(x, **options)[valid])
    with torch.no_grad():
        expected = theirs(x, **options)
        torch.testing.assert_close(same(x, **options)[valid], expected[valid], atol=2e-5, rtol=1e-4)
    assert not torch.allclose(f[valid], expected[valid], atol=1e-2)
    if padded:
        torch.testing.assert_close(f[1, :6], ours(x[1:, :6])[0], atol=2e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # which torch's own encoder makes
def test_an_encoder_built_of_ours_does_not_either():
    layer = nn.TransformerEncoderLayer(16, 4, 20, batch_first=True)
    layer.self_attn = torch_impl.MultiheadAttention(16, 4, batch_first=True, primal="bn")
    encoder = nn.TransformerEncoder(layer, 2).eval()
    x, valid = torch.randn(2, 9, 16), torch.arange(9) < torch.tensor([[9], [6]])
    with torch.no_grad():  # and without a recording, whose hooks would keep torch's kernel away
        f = encoder(x, src_key_padding_mask=~valid)
    torch.testing.assert_close(f[valid], encoder(x, src_key_padding_mask=~valid)[valid])


def test_replacing_keeps_weights_place_and_mode():
    model = torch_encoder().double().train()
    weights = {name: each.clone() for name, each in model.state_dict().items()}
    assert replace_attention(model, Heads(Primal(), *[Primal(support=Window(1))] * 3)) is model
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(each, weights[name]) for name, each in model.state_dict().items())
    assert model.layers[0].self_attn.training and model.layers[1].self_attn.in_proj_weight.dtype == torch.double
    hugging_face = bert("softmax")
    replace_attention(hugging_face, "bn")
    ids = torch.randint(0, 30, (2, 9))
    expected = bert("bn")
    expected.load_state_dict(hugging_face.state_dict())
    torch.testing.assert_close(hidden(hugging_face, ids), hidden(expected, ids))
    replace_attention(hugging_face, Primal(support=Window(1)))
    assert calls_of(hugging_face, ids)[1][0][1].primal == Heads(*[Primal(support=Window(1))] * 4)


def test_replacing_again_and_what_is_shared():
    model = torch_encoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.layers[0].self_attn.in_proj_weight.requires_grad = False
    model.tied = model.layers[1].self_attn
    for primal in ("bn", "window"):
        replace_attention(model, primal)
        first, second = (layer.self_attn for layer in model.layers)
        assert first.primal == torch_impl.MultiheadAttention(16, 4, primal=primal).primal
        assert model.tied is second and not first.in_proj_weight.requires_grad
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in model.parameters()}


def test_all_or_nothing_is_replaced():
    model = nn.ModuleList([nn.MultiheadAttention(4, 2), nn.MultiheadAttention(4, 2, add_zero_attn=True)])
    with pytest.raises(ValueError, match="add_zero_attn"):
        replace_attention(model, "bn")
    assert type(model[0]) is nn.MultiheadAttention


def test_primals_of_one_hash_are_two():
    a, b = bert("softmax"), bert("softmax")
    for model, beta in ((a, -1.0), (b, -2.0)):
        replace_attention(model, Primal(transform=BatchNorm(beta)))
    ids = torch.randint(0, 30, (1, 5))
    betas = [calls_of(model, ids)[1][0][1].primal.primals[0].transform.beta for model in (a, b)]
    assert hash(-1.0) == hash(-2.0) and betas == [-1.0, -2.0]


def test_a_table_of_its_users_is_final():
    """As in the library itself: a prefix that is seen in both directions, in a decoder."""
    ours, ids = llama("softmax"), torch.randint(0, 30, (1, 7))
    theirs = copy.deepcopy(ours)
    theirs.set_attn_implementation("sdpa")
    table = torch.ones(7, 7).tril().bool()
    table[:4, :4] = True
    mask = torch.zeros(1, 1, 7, 7).masked_fill(~table, torch.finfo(torch.float32).min)
    expected = theirs(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(ours(ids, attention_mask=mask).last_hidden_state, expected)


def test_caches_that_move_positions_are_refused():
    model, ids = llama("sh"), torch.randint(0, 30, (1, 7))
    cache = StaticCache(config=model.config, max_cache_len=16)
    with pytest.raises(ValueError, match="expected a cache that grows"):
        model(ids, past_key_values=cache)
    config = MistralConfig(vocab_size=30, sliding_window=3, num_key_value_heads=2, **SIZES, **implementation("sh"))
    model = MistralModel(config).eval()
    cache = model(ids[:, :5], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="expected use_cache=False, since a sliding cache"):
        model(ids[:, 5:], past_key_values=cache)
    bn = MistralModel(MistralConfig(**{**config.to_dict(), **implementation("bn")})).eval()
    cache = bn(ids[:, :5], use_cache=True).past_key_values
    torch.testing.assert_close(
        bn(ids[:, 5:], past_key_values=cache).last_hidden_state, bn(ids).last_hidden_state[:, 5:]
    )


def test_nothing_to_replace():
    with pytest.raises(ValueError, match="got Linear, which is or has none"):
        replace_attention(nn.Linear(2, 2), "bn")
    with pytest.raises(ValueError, match="did you mean"):
        replace_attention(bert("softmax"), "bm")
    for alone in (nn.MultiheadAttention(4, 2), GPT2Model(GPT2Config(n_embd=8, n_head=2, n_layer=1)).h[0].mlp):
        with pytest.raises(ValueError, match="is or has none"):
            replace_attention(alone, "bn")
    with pytest.raises(ValueError, match="add_bias_kv"):
        replace_attention(nn.Sequential(nn.MultiheadAttention(4, 2, add_bias_kv=True)), "bn")


def in_timm():
    """timm's Attention, or where timm cannot be imported a module of its name and weights."""
    module = types.ModuleType("timm.layers.attention")

    class Attention(TimmAttention):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.head_dim = self.qkv.out_features // 3 // self.num_heads

    Attention.__module__ = module.__name__
    return Attention


@pytest.mark.parametrize("name", [name for name in catalog if name != "multi-head"])
def test_timm_attention(name):
    layer = timm_attention(name)(16, num_heads=4, qkv_bias=True, qk_norm=True, scale_norm=True)
    assert isinstance(timm_attention(name), type) and issubclass(timm_attention(name), nn.Module)
    x = torch.randn(2, 9, 16)
    f = layer(x)
    padded = torch.cat([x, torch.randn(2, 4, 16)], 1)
    valid = (torch.arange(13) < 9).expand(2, 1, 1, -1)
    torch.testing.assert_close(layer(padded, attn_mask=valid)[:, :9], f)
    hide = torch.zeros(2, 1, 1, 13).masked_fill(~valid, float("-inf"))
    torch.testing.assert_close(layer(padded, attn_mask=hide)[:, :9], f)
    causal = layer(x, is_causal=True)
    x2 = torch.cat([x[:, :-1], torch.randn(2, 1, 16)], 1)
    torch.testing.assert_close(layer(x2, is_causal=True)[:, :-1], causal[:, :-1])


def test_timm_names_and_replacement():
    layer = timm_attention("softmax")(16, 4, qkv_bias=True)
    assert set(layer.state_dict()) == {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}
    layer, x = timm_attention("softmax")(16, 4, qkv_bias=True, qk_norm=True), torch.randn(2, 9, 16)
    for norm in (layer.q_norm, layer.k_norm):
        nn.init.normal_(norm.weight)
    q, k, v = layer.qkv(x).reshape(2, 9, 3, 4, 4).permute(2, 0, 3, 1, 4)
    expected = nn.functional.scaled_dot_product_attention(layer.q_norm(q), layer.k_norm(k), v)
    expected = expected.transpose(1, 2).reshape(2, 9, 16)
    torch.testing.assert_close(layer(x), layer.proj(expected))
    model = nn.Sequential(in_timm()(16, 4, qkv_bias=True, qk_norm=True))
    before = model.state_dict()
    replace_attention(model, "bn")
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    new = timm_attention("bn")(16, 4, qkv_bias=True, qk_norm=True)
    new.load_state_dict(model[0].state_dict())
    torch.testing.assert_close(model(x), new(x))


def test_timm_attention_drops_weights_in_training_only():
    layer, x = TimmAttention(16, 4, attn_drop=0.5), torch.randn(2, 9, 16)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


class InTimm(timm_attention("sh")):
    """A class of one's own."""


@pytest.mark.parametrize("make", [lambda: timm_attention("bn", learn_beta=True), lambda: InTimm], ids=["bn", "own"])
def test_a_module_of_timm_attention_can_be_pickled_and_copied(make):
    layer, x = make()(16, 4).eval(), torch.randn(2, 9, 16)
    file = io.BytesIO()
    torch.save(nn.Sequential(layer), file)
    file.seek(0)
    for again in (pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)[0], copy.deepcopy(layer)):
        assert again.primal == layer.primal and again.state_dict().keys() == layer.state_dict().keys()
        assert type(again) is type(layer)
        torch.testing.assert_close(again(x), layer(x))


def test_timm_itself():
    try:
        from timm.models import create_model
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm cannot be imported: {error}")
    theirs = create_model("deit_tiny_patch16_224", num_classes=3).eval()
    ours = create_model("deit_tiny_patch16_224", num_classes=3, attn_layer=timm_attention("softmax")).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)
    replaced = replace_attention(theirs, "bn")
    assert not torch.allclose(replaced(x), ours(x)) and "timm" in sys.modules
