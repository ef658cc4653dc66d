"""A Hugging Face model keeps our attention when it is saved, copied or pickled, or an error says what to call."""

import copy
import io
import json
import pickle
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from primal_dual import BatchNorm, Heads, Primal
from torch_impl.drop_in import register, register_transformers, replace_attention
from torch_impl.recorder import recording

SIZES = dict(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20)
OWN = Heads(Primal(transform=BatchNorm(0.5)), Primal(scale=3))
IDS = torch.arange(7)[None]


@pytest.fixture(autouse=True, scope="module")
def registered():
    register_transformers()


def bert():
    torch.manual_seed(0)
    return BertModel(BertConfig(**SIZES, max_position_embeddings=20)).eval()


def primals(model, *arguments, **options):
    with recording(model) as calls, torch.no_grad():
        model(*arguments, **options)
    return [call.primal for _, call in calls]


def through_files(model, tmp_path):
    model.save_pretrained(tmp_path)
    return AutoModel.from_pretrained(tmp_path).eval()


def through_files_twice(model, tmp_path):
    return through_files(through_files(model, tmp_path / "first"), tmp_path / "second")


def through_torch(model, tmp_path):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {
    "files": through_files,
    "files, twice": through_files_twice,
    "torch.save": through_torch,
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "configuration": lambda model, _: loaded_like(model, BertConfig(**model.config.to_dict())),
    "copy of it": lambda model, _: loaded_like(model, copy.copy(model.config)),
}


def loaded_like(model, config):
    new = type(model)(config).eval()
    new.load_state_dict(model.state_dict())
    return new


@pytest.mark.parametrize("primal", ["bn", "sh", OWN], ids=["bn", "sh", "own"])
@pytest.mark.parametrize("way", WAYS)
def test_a_model_comes_back_with_its_attention(way, primal, tmp_path):
    model = replace_attention(bert(), primal)
    expected = primals(model, IDS)
    assert expected != primals(bert(), IDS)
    again = WAYS[way](model, tmp_path)
    assert primals(again, IDS) == expected
    assert torch.equal(again(IDS).last_hidden_state, model(IDS).last_hidden_state)


def test_what_is_chosen_in_loading_comes_first(tmp_path):
    replace_attention(bert(), "bn").save_pretrained(tmp_path)
    assert primals(BertModel.from_pretrained(tmp_path, attn_implementation="sdpa"), IDS) == []
    other = BertModel.from_pretrained(tmp_path, attn_implementation="attention_softmax")
    assert primals(other, IDS) == [Heads(Primal(), Primal())]


@pytest.mark.parametrize("name", ["sdpa", "eager", "flash_attention_2", "", 3])
def test_the_attentions_of_the_library_stay_what_they_are(name):
    with pytest.raises(ValueError, match=f"name: expected one that transformers does not use; got {name!r}"):
        register(name, "bn")
    assert register(register("narrow", "bn"), "bn+sh") == "narrow"


def test_softmax_of_the_library_is_not_written(tmp_path):
    bert().save_pretrained(tmp_path)
    assert "attn_implementation" not in json.loads((tmp_path / "config.json").read_text())


def test_a_model_that_generates(tmp_path):
    config = LlamaConfig(**SIZES, attn_implementation="attention_causal-bn", bos_token_id=1, eos_token_id=2)
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert not hasattr(again.generation_config, "attn_implementation")


@pytest.mark.parametrize(
    "names",
    [
        "attention_bn",
        {"text_config": "attention_bn", "vision_config": "attention_sh"},
        {"text_config": "attention_bn"},
    ],
    ids=str,
)
def test_parts_of_a_model_keep_attentions_of_their_own(names, tmp_path):
    text = dict(SIZES, max_position_embeddings=20)
    image = dict(SIZES, image_size=8, patch_size=4)
    config = CLIPConfig(text_config=text, vision_config=image, projection_dim=8)
    config._attn_implementation = names
    model = CLIPModel(config).eval()
    images = torch.randn(1, 3, 8, 8)
    expected = primals(model, IDS, images)
    assert len(expected) == (1 if names == {"text_config": "attention_bn"} else 2)
    model.save_pretrained(tmp_path)
    assert primals(CLIPModel.from_pretrained(tmp_path).eval(), IDS, images) == expected
    assert AutoConfig.from_pretrained(tmp_path).text_config._attn_implementation.startswith("attention_bn")


ELSEWHERE = """
import sys, pickle
from transformers import AutoModel
for folder in sys.argv[2:]:
    try:
        AutoModel.from_pretrained(folder)
    except ValueError as error:
        print(error)
with open(sys.argv[1], "rb") as file:
    model = pickle.load(file)
print(model(model.dummy_inputs["input_ids"]).last_hidden_state.sum().item())
"""


def test_another_process_is_told_what_to_call_or_has_it_called_already(tmp_path):
    replace_attention(bert(), "bn").save_pretrained(tmp_path / "bn")
    model = replace_attention(bert(), OWN)
    model.save_pretrained(tmp_path / "own")
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    command = [sys.executable, "-c", ELSEWHERE, *(tmp_path / name for name in ("model.pickle", "bn", "own"))]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "torch_impl.drop_in.register_transformers()" in lines[0]
    assert f"torch_impl.drop_in.register('{model.config._attn_implementation}', {OWN!r})" in lines[1]
    assert float(lines[2]) == pytest.approx(model(model.dummy_inputs["input_ids"]).last_hidden_state.sum().item())
