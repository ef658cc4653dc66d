"""Hugging Face's models of less usual kinds: each gets the attention that was asked for, or is refused by name."""

import copy

import pytest
import torch
from torch import nn
from transformers import (
    Aimv2VisionConfig,
    Aimv2VisionModel,
    BartConfig,
    BartModel,
    BertConfig,
    BertModel,
    DogeConfig,
    DogeModel,
    Gemma2Config,
    Gemma2Model,
    GitConfig,
    GitModel,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    NllbMoeConfig,
    NllbMoeModel,
    OPTConfig,
    OPTModel,
    PegasusXConfig,
    PegasusXModel,
    ResNetConfig,
    ResNetModel,
    SamVisionConfig,
    SamVisionModel,
    Speech2TextConfig,
    Speech2TextModel,
    T5Config,
    T5Model,
    TimesFmConfig,
    TimesFmModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperModel,
)

import torch_impl
from primal_dual import catalog, heads
from torch_impl.drop_in import register_transformers, replace_attention
from torch_impl.recorder import recording

SIZES = dict(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20)
SIDES = {
    f"{part}_{what}": n
    for part in ("encoder", "decoder")
    for what, n in dict(layers=1, attention_heads=2, ffn_dim=20).items()
}
IDS = torch.arange(3, 10)[None]


@pytest.fixture(autouse=True)
def registered():
    torch.manual_seed(0)
    register_transformers()


def bart():
    return BartModel(BartConfig(vocab_size=30, d_model=16, **SIDES)), dict(input_ids=IDS)


def whisper():
    sizes = dict(vocab_size=30, d_model=16, num_mel_bins=8, max_source_positions=9, pad_token_id=0)
    return WhisperModel(WhisperConfig(**sizes, **SIDES)), dict(
        input_features=torch.randn(1, 8, 18), decoder_input_ids=IDS
    )


def wav2vec2():
    convolutions = dict(conv_dim=(8, 8), conv_stride=(2, 2), conv_kernel=(3, 3), num_conv_pos_embedding_groups=2)
    config = Wav2Vec2Config(**SIZES, **convolutions, num_conv_pos_embeddings=4)
    return Wav2Vec2Model(config), dict(input_values=torch.randn(1, 50))


def opt():
    config = OPTConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=20)
    return OPTModel(config), dict(input_ids=IDS)


def llama():
    return LlamaModel(LlamaConfig(**SIZES)), dict(input_ids=IDS)


def bert():
    return BertModel(BertConfig(**SIZES, max_position_embeddings=20)), dict(input_ids=IDS)


def doge():
    return DogeModel(DogeConfig(**SIZES)), dict(input_ids=IDS)


def speech_to_text():
    sizes = dict(vocab_size=30, d_model=16, input_feat_per_channel=8, conv_channels=16)
    inputs = dict(input_features=torch.randn(1, 40, 8), decoder_input_ids=IDS)
    return Speech2TextModel(Speech2TextConfig(**sizes, **SIDES)), inputs


def sam():
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_dim=20, output_channels=8)
    return SamVisionModel(SamVisionConfig(**sizes, image_size=16, patch_size=4, window_size=2, global_attn_indexes=[]))


def aimv2():
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20)
    return Aimv2VisionModel(Aimv2VisionConfig(**sizes, image_size=16, patch_size=4))


def outputs(model, inputs):
    with torch.no_grad():
        return model.eval()(**inputs).last_hidden_state


@pytest.mark.parametrize("build", [bart, whisper, wav2vec2, opt, bert, llama])
def test_replacing_gives_the_attention_that_is_asked_for(build):
    model, inputs = build()
    expected = outputs(model, inputs)
    replace_attention(model, "softmax")
    torch.testing.assert_close(outputs(model, inputs), expected, atol=2e-6, rtol=1e-5)
    replace_attention(model, "bn")
    with recording(model) as calls:
        assert not torch.allclose(outputs(model, inputs), expected, atol=1e-3)
    assert len(calls) == (3 if build in (bart, whisper) else 1)


def bert_decoder():
    """A decoder that also attends to the outputs of another model, which are random here."""
    model = BertModel(BertConfig(**SIZES, is_decoder=True, add_cross_attention=True))
    return model, dict(encoder_hidden_states=torch.randn(1, 7, 16).double())


@pytest.mark.parametrize("build, ids", [(bart, "decoder_input_ids"), (bert_decoder, "input_ids")])
def test_cross_attention_with_as_many_queries_as_keys_does_not_hide_queries(build, ids):
    """Padding among the keys is none among the queries: an eighth query changes nothing for those that stand apart."""
    model, inputs = build()
    replace_attention(model, "conv1d").double()
    mask = "encoder_attention_mask" if build is bert_decoder else "attention_mask"
    inputs |= {mask: torch.tensor([[0] * 2 + [1] * 5])}
    queries = torch.arange(3, 11)[None]
    seven, eight = (outputs(model, inputs | {ids: queries[:, :n]}) for n in (7, 8))
    torch.testing.assert_close(seven[:, :5], eight[:, :5])


def test_a_model_inside_a_module():
    model, inputs = bert()
    expected = outputs(replace_attention(copy.deepcopy(model), "bn"), inputs)
    outer = replace_attention(nn.Sequential(model), "bn")
    torch.testing.assert_close(outputs(outer[0], inputs), expected)


@pytest.mark.parametrize("build", [whisper, opt])
@pytest.mark.parametrize("name", ["bn", "rbf", "linear", "qk-norm"])
def test_queries_that_come_scaled_are_taken_as_they_are_projected(build, name):
    """The attention module against the primal on the module's own q, k and v."""
    model, inputs = build()
    replace_attention(model, name).eval()
    layers = model.encoder.layers if build is whisper else model.decoder.layers
    attention = layers[0].self_attn
    seen = {}
    attention.register_forward_hook(
        lambda module, args, options, result: seen.update(x=options["hidden_states"], f=result[0]), with_kwargs=True
    )
    outputs(model, inputs)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    q, k, v = (each(seen["x"]).unflatten(-1, (2, 8)).transpose(1, 2) for each in projections)
    f = torch_impl.attention(heads(name, 2), q, k, v, is_causal=build is opt)
    torch.testing.assert_close(attention.out_proj(f.transpose(1, 2).flatten(-2)), seen["f"])


def test_queries_that_are_scaled_otherwise_are_refused():
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8, intermediate_size=20)
    model = TimesFmModel(TimesFmConfig(**sizes, patch_length=4, context_length=8)).eval()
    inputs = dict(past_values=torch.randn(1, 8), past_values_padding=torch.zeros(1, 8), freq=torch.zeros(1, 1).long())
    expected = outputs(model, inputs)
    torch.testing.assert_close(outputs(replace_attention(model, "softmax"), inputs), expected)
    with pytest.raises(ValueError, match="expected queries as TimesFmAttention projects them; got scaled ones"):
        outputs(replace_attention(model, "bn"), inputs)


def test_models_that_take_no_attention_function_are_refused_by_name():
    config = MPNetConfig(**SIZES, max_position_embeddings=20)
    model = MPNetModel(config)
    with pytest.raises(ValueError, match="got MPNetModel, which takes none"):
        replace_attention(model, "bn")
    with pytest.raises(ValueError, match="for attention_bn; got MPNetModel, which takes none"):
        MPNetModel._from_config(config, attn_implementation="attention_bn")
    with pytest.raises(ValueError, match="got ResNetModel, which is or has none"):
        replace_attention(ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])), "bn")


def test_a_model_that_computes_what_is_causal_is_taken():
    """Gemma2's layers set is_causal to an expression; without its soft cap, it has a primal."""
    sizes = SIZES | dict(num_key_value_heads=2, head_dim=8, attn_logit_softcapping=None, final_logit_softcapping=None)
    model = Gemma2Model(Gemma2Config(**sizes, query_pre_attn_scalar=8)).eval()
    expected = outputs(model, {"input_ids": IDS})
    torch.testing.assert_close(outputs(replace_attention(model, "softmax"), {"input_ids": IDS}), expected)


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("name", ["softmax", "bn", "sh"])
@pytest.mark.parametrize("build, ids", [(doge, "input_ids"), (speech_to_text, "decoder_input_ids")])
def test_later_tokens_change_nothing_in_causal_models(build, ids, name, padding):
    """Doge adds numbers of its own to its mask; Speech2Text does not support torch's attention."""
    model, inputs = build()
    for p in model.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=0.3)
    model.double()
    inputs = {key: x.double() if x.is_floating_point() else x for key, x in inputs.items()}
    mask = (torch.arange(7) < 7 - padding).long()[None]
    inputs[ids.replace("input_ids", "attention_mask")] = mask
    expected = outputs(model, inputs)
    replace_attention(model, name)
    found, moved = outputs(model, inputs), outputs(model, inputs | {ids: torch.cat([IDS[:, :4], IDS[:, 4:] + 9], 1)})
    torch.testing.assert_close(found[:, :4], moved[:, :4])
    if name == "softmax":
        torch.testing.assert_close(found[:, : 7 - padding], expected[:, : 7 - padding])


@pytest.mark.parametrize(
    "build",
    [
        lambda: GitModel(GitConfig(**SIZES, vision_config=dict(SIZES, image_size=12, patch_size=4))),
        lambda: NllbMoeModel(NllbMoeConfig(vocab_size=30, d_model=16, num_experts=2, **SIDES)),
        lambda: PegasusXModel(PegasusXConfig(vocab_size=30, d_model=16, **SIDES)),
    ],
    ids=["git", "nllb-moe", "pegasus_x"],
)
def test_models_whose_causality_is_in_a_table_alone_are_refused(build):
    model = build()
    name = type(model).__name__
    with pytest.raises(ValueError, match=f"got {name}, whose causal layers do not tell them so"):
        replace_attention(model, "softmax")
    with pytest.raises(ValueError, match=f"for attention_bn; got {name}, whose causal layers do not tell"):
        type(model)._from_config(model.config, attn_implementation="attention_bn")


@pytest.mark.parametrize("build", [sam, aimv2], ids=["sam", "aimv2"])
def test_a_model_of_which_a_part_would_stay_is_refused_before_anything_changes(build):
    """SAM's layers compute attention themselves; of AIMv2, the pool does."""
    model = build()
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match=r"got (SamVisionSdpaAttention|Aimv2AttentionPoolingHead)"):
        replace_attention(model, "bn")
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("build", [bart, whisper, wav2vec2, opt, bert, llama, doge])
def test_heads_of_another_number_are_refused_before_anything_changes(build):
    model, inputs = build()
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match="heads: expected Heads of 2; got 3"):
        replace_attention(model, heads("bn+sh", 3))
    assert model.config._attn_implementation == before
    assert outputs(replace_attention(model, heads("bn+sh", 2)), inputs).isfinite().all()


def test_a_relative_position_bias_is_refused_before_anything_changes():
    model = T5Model(T5Config(d_model=16, d_kv=8, d_ff=20, num_layers=1, num_heads=2, vocab_size=40))
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match=r"expected a model without a relative position bias.* got T5Model"):
        replace_attention(model, "bn")
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("name", catalog)
@pytest.mark.parametrize("build", [bert, llama])
def test_weights_are_given_if_they_are_asked_for(name, build):
    model, inputs = build()
    replace_attention(model, name).eval()
    with recording(model) as calls, torch.no_grad():
        weights = model(**inputs, output_attentions=True).attentions
    ((_, call),) = calls
    f = torch_impl.attention(call.primal, call.q, call.k, call.v, is_causal=build is llama)
    assert weights[0].shape == (1, 2, 7, 7)
    torch.testing.assert_close(weights[0] @ call.v, f)


def test_weights_of_left_padded_tokens_are_in_their_order():
    model, inputs = llama()
    replace_attention(model, "sh").eval()
    plain = model(**inputs, output_attentions=True).attentions[0]
    mask = torch.cat([torch.zeros(1, 3), torch.ones(1, 7)], 1).long()
    positions = mask.cumsum(-1).sub(1).clamp_min(0)
    ids = torch.cat([IDS[:, :3], IDS], 1)
    padded = model(ids, attention_mask=mask, position_ids=positions, output_attentions=True).attentions[0]
    torch.testing.assert_close(padded[..., 3:, 3:], plain)
    assert (padded[..., 3:, :3] == 0).all()


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "sh", "bn", "softmax"])
def test_padding_changes_nothing_under_a_table(name):
    """ModernBERT passes a table for its local layers."""
    sizes = SIZES | dict(num_hidden_layers=2, local_attention=4)
    tokens = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
    model = ModernBertModel(ModernBertConfig(**sizes, **tokens, attn_implementation=f"attention_{name}")).eval()
    for p in model.parameters():  # larger than those of a new model, so that what leaks is seen
        nn.init.normal_(p, std=0.5)
    mask = (torch.arange(11) < 7).long()[None]
    padded = (torch.cat([IDS, torch.randint(3, 30, (1, 4))], 1) for _ in range(2))
    one, other = (outputs(model, dict(input_ids=ids, attention_mask=mask))[:, :7] for ids in padded)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one, outputs(model, dict(input_ids=IDS)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["softmax", "bn", "sh", "rbf"])
@pytest.mark.parametrize("number", [-100.0, -1e4, -1e9, torch.finfo(torch.float64).min])
def test_a_large_negative_number_in_a_mask_hides_a_key_from_statistics_and_pools(name, number):
    """Swin hides by -100, MarkupLM by -10,000, and callers by what they like."""
    model = replace_attention(bert()[0], name).double()
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    mask = torch.tensor([0.0] * 7 + [number] * 4).double()[None, None, None]
    padded = (torch.cat([IDS, torch.randint(3, 30, (1, 4))], 1) for _ in range(2))
    one, other = (outputs(model, dict(input_ids=ids, attention_mask=mask))[:, :7] for ids in padded)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one, outputs(model, dict(input_ids=IDS)))


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("hidden", [0, 3])
@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_a_table_from_the_caller_says_itself_what_is_causal(kind, hidden, rows):
    model, inputs = llama()
    seen = (torch.arange(7) < 7 - hidden).expand(1, 1, rows, 7)
    mask = seen if kind == torch.bool else torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(kind).min)
    expected = outputs(model, inputs | dict(attention_mask=mask))
    replace_attention(model, "softmax")
    torch.testing.assert_close(outputs(model, inputs | dict(attention_mask=mask)), expected)
