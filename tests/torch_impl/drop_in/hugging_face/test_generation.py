"""Generation by Hugging Face's models: a cache of keys changes nothing, nor does left padding, or it is refused."""

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from primal_dual import catalog
from torch_impl.drop_in import register_transformers

SIZES = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, intermediate_size=20)
TOKENS = dict(vocab_size=30, pad_token_id=0, bos_token_id=1, eos_token_id=2)
CONVOLUTIONS = ("conv1d", "conv2d")
CACHED = [name for name in catalog if name not in CONVOLUTIONS]
NEW = 3


@pytest.fixture(autouse=True)
def registered():
    torch.manual_seed(0)
    register_transformers()


def llama(name):
    return LlamaForCausalLM(LlamaConfig(**SIZES, **TOKENS, attn_implementation=f"attention_{name}")).eval()


def mistral(name):
    config = MistralConfig(**SIZES, **TOKENS, sliding_window=4, attn_implementation=f"attention_{name}")
    return MistralForCausalLM(config).eval()


def bart(name):
    sizes = {f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in SIDES.items()}
    config = BartConfig(**TOKENS, d_model=16, **sizes, attn_implementation=f"attention_{name}")
    return BartForConditionalGeneration(config).eval()


SIDES = dict(layers=1, attention_heads=2, ffn_dim=20)


def left_padded(prompts, length):
    """Prompts of unequal lengths in one batch, with other tokens for padding in each place."""
    ids, mask = torch.randint(3, 30, (len(prompts), length)), torch.zeros(len(prompts), length, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = prompt
        mask[row, length - len(prompt) :] = 1
    return ids, mask


def generate(model, ids, mask, **options):
    """The tokens that are new, and the logits that chose them."""
    options = dict(do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW, **options)
    result = model.generate(ids, attention_mask=mask, return_dict_in_generate=True, output_logits=True, **options)
    return result.sequences[:, -NEW:], torch.stack(result.logits, 1)


@pytest.mark.parametrize("name", CACHED)
def test_a_cache_and_unequal_prompts_change_nothing(name):
    model, prompts = llama(name), [torch.randint(3, 30, (n,)) for n in (3, 7, 8)]
    ids, mask = left_padded(prompts, 11)
    tokens, logits = generate(model, ids, mask)
    for row, prompt in enumerate(prompts):
        alone, expected = generate(model, prompt[None], torch.ones(1, len(prompt)).long(), use_cache=False)
        assert torch.equal(alone[0], tokens[row])
        torch.testing.assert_close(logits[row], expected[0], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["softmax", "bn", "sh", "bn+sh", "causal-bn", "linear-bn"])
def test_beams_and_a_cache(name):
    model = llama(name)
    ids, mask = left_padded([torch.randint(3, 30, (n,)) for n in (4, 7)], 7)
    cached = generate(model, ids, mask, num_beams=3)[0]
    assert torch.equal(cached, generate(model, ids, mask, num_beams=3, use_cache=False)[0])


@pytest.mark.parametrize("name", CACHED)
def test_a_cache_that_is_read_by_several_queries_and_by_one(name):
    model, ids = llama(name), torch.randint(3, 30, (2, 9))
    with torch.no_grad():
        expected = model(ids).logits
        first = model(ids[:, :4], use_cache=True)
        several = model(ids[:, 4:8], past_key_values=first.past_key_values)
        one = model(ids[:, 8:], past_key_values=several.past_key_values)
    found = torch.cat([part.logits for part in (first, several, one)], 1)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "more"), [*((name, 3) for name in catalog), *((name, n) for name in ("sh", "conv2d") for n in (1, 8))]
)
@pytest.mark.parametrize("build", [llama, mistral])
def test_left_padding_changes_nothing(name, build, more):
    model, ids = build(name), torch.randint(3, 30, (2, 9))
    padded, mask = left_padded(list(ids), 9 + more)
    positions = mask.cumsum(-1).sub(1).clamp_min(0)  # as in generation
    with torch.no_grad():
        found = model(padded, attention_mask=mask, position_ids=positions, use_cache=False).logits[:, more:]
        torch.testing.assert_close(found, model(ids, use_cache=False).logits, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["softmax", "bn", "linear", "rbf", "qk-norm", "taylor", "sh", "bn+sh", "linear-bn+sh"])
def test_an_encoder_and_its_decoder(name):
    model = bart(name)
    ids, mask = torch.randint(3, 30, (2, 9)), (torch.arange(9) < torch.tensor([[9], [6]])).long()
    cached, expected = generate(model, ids, mask), generate(model, ids, mask, use_cache=False)
    assert torch.equal(cached[0], expected[0])
    torch.testing.assert_close(cached[1], expected[1], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("build", "name", "reason"),
    [
        (llama, "conv1d", "a Convolution needs all queries"),
        (bart, "conv2d", "a Convolution needs all queries"),
        (bart, "causal", "a cached query does not know its position in cross-attention"),
        (bart, "window-bn", "a cached query does not know its position in cross-attention"),
        (bart, "strided", "a cached query does not know its position in cross-attention"),
        (mistral, "sh", "the model's own mask hides where the keys to be averaged begin"),
    ],
)
def test_what_cannot_read_a_cache_is_refused_before_the_first_token(build, name, reason):
    model, ids = build(name), torch.randint(3, 30, (1, 6))
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    with pytest.raises(ValueError, match=f"attention {name}: expected use_cache=False, since {reason}"):
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2)
    assert not runs
    generate(model, ids, torch.ones_like(ids), use_cache=False)
    assert len(runs) == NEW


def test_a_cached_query_of_cross_attention_is_refused_without_generate():
    model, ids = bart("window"), torch.randint(3, 30, (1, 6))
    first = model(ids, decoder_input_ids=ids[:, :2], use_cache=True)
    with pytest.raises(ValueError, match="does not know its position in cross-attention"):
        options = dict(encoder_outputs=(first.encoder_last_hidden_state,), past_key_values=first.past_key_values)
        model(decoder_input_ids=ids[:, 2:3], **options)
