"""How complex the heads of a model are: the numbers by their definitions, and the command for models of every kind."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    AttentionInterface,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)
from typer.testing import CliRunner

from primal_dual import catalog, certify, heads, solve_dual
from primal_dual.cli.commands import app
from tests.torch_impl.training.short_runs import TINY
from torch_impl import certify_module
from torch_impl.analysis.head_complexity import TUBE, describe_heads
from torch_impl.analysis.models_to_certify import load_model
from torch_impl.drop_in import replace_attention
from torch_impl.recorder import recording
from torch_impl.training.runs.distributed import this_process
from torch_impl.training.runs.trainer import begin

WORDS = ["[UNK]", "a", "layer", "is", "an", "attention"]


def causal_layer(name):
    torch.manual_seed(0)
    return replace_attention(nn.TransformerEncoderLayer(12, 3, batch_first=True).double().eval(), name)


@pytest.mark.parametrize("name", ["softmax", "causal", "bn"])
def test_the_numbers_of_a_head(name):
    layer, x = causal_layer(name), torch.randn(1, 11, 12).double()
    with recording(layer) as calls:
        layer(x)
    call = calls[0][1]
    for head in describe_heads(layer, x):
        keys, values = call.k[0, head.head].detach().cpu().numpy(), call.v[0, head.head].detach().cpu().numpy()
        query = 10 if name == "causal" else None
        right = certify(catalog[name], keys, values, query=query)
        assert head.log_C == right.log_C and head.relative_gap <= 1e-12 and head.keys == 11
        size = np.ptp(right.targets)
        C = np.exp(right.log_C)
        solved = solve_dual(catalog[name], keys, right.targets, C=C, epsilon=TUBE * size, query=query)
        used = abs(solved.alpha - solved.alpha_tilde) > 1e-6 * C
        assert head.support_vectors == used.mean() and head.support_keys == used.any(1).mean()
        delta = right.delta * np.exp(right.log_scale)
        G = right._training_set.gram(right._training_set.keys)
        np.testing.assert_allclose(2 * head.log_norm, np.log((delta * (G @ delta)).sum()), rtol=1e-9)
        each = np.sort(abs(delta).sum(1))[::-1]
        most = head.most_keys
        assert each[:most].sum() >= 0.9 * each.sum() > each[: most - 1].sum()


def test_the_gap_of_a_causal_head_is_that_of_its_worst_query():
    layer, x = causal_layer("causal"), torch.randn(1, 11, 12).double()
    with recording(layer) as calls:
        layer(x)
    call = calls[0][1]
    for head in describe_heads(layer, x):
        keys, values = (each[0, head.head].detach().cpu().numpy() for each in (call.k, call.v))
        assert head.relative_gap == certify(catalog["causal"], keys, values).relative_gap


def test_the_svr_of_a_chosen_query():
    """With a mask, without one, and where padding asks nothing."""
    layer, x = causal_layer("causal"), torch.randn(1, 11, 12).double()
    valid = torch.arange(11)[None] < 9
    whole, padded = certify_module(layer, x, query=8), certify_module(layer, (x, None, ~valid), query=-1)
    for one, other in zip(whole, padded, strict=True):
        assert one.certificate.query == other.certificate.query == 8
        np.testing.assert_allclose(one.certificate.log_C, other.certificate.log_C, rtol=1e-9)
        assert one.certificate.delta.shape == other.certificate.delta.shape == (9, 4)
    for query in (11, -12, 0.5):
        with pytest.raises(ValueError, match="query: expected a whole number, -11 to 10; got"):
            certify_module(layer, x, query=query)
    with pytest.raises(ValueError, match="query: expected a whole number, -9 to 8; got 9"):
        certify_module(layer, (x, None, ~valid), query=9)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", model_max_length=80).save_pretrained(folder)
    sizes = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=16, vocab_size=6)
    BertModel(BertConfig(**sizes, max_position_embeddings=150)).save_pretrained(folder)
    return folder


def command(*words):
    return CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(app, ["certify", *map(str, words)])


def test_a_hugging_face_model(model_folder, tmp_path):
    (tmp_path / "text.txt").write_text("a layer is an attention is a layer")
    files = "--json", tmp_path / "heads.json", "--figure", tmp_path / "heads.png"
    done = command("--model", model_folder, "--input", tmp_path / "text.txt", *files)
    assert done.exit_code == 0, done.output
    assert "6 heads, each the optimum of an SVR with 8 keys" in done.output
    found = json.loads((tmp_path / "heads.json").read_text())
    assert found["config"]["model"] == str(model_folder) and len(found["heads"]) == 6
    assert max(head["relative_gap"] for head in found["heads"]) < 1e-12
    assert (tmp_path / "heads.png").stat().st_size > 10_000


def test_a_hugging_face_model_that_was_saved_with_our_attention_keeps_it(model_folder, tmp_path, monkeypatch):
    replace_attention(BertModel.from_pretrained(model_folder), "bn").save_pretrained(tmp_path)
    PreTrainedTokenizerFast.from_pretrained(model_folder).save_pretrained(tmp_path)
    of_the_library = {name: f for name, f in AttentionInterface._global_mapping.items() if "attention_bn" not in name}
    monkeypatch.setattr(AttentionInterface, "_global_mapping", of_the_library)  # as in a process that begins
    (tmp_path / "text.txt").write_text("a layer is an attention")
    model, inputs = load_model(str(tmp_path), tmp_path / "text.txt")
    with recording(model) as calls:
        model(**inputs)
    assert [call.primal for _, call in calls] == [heads("bn", 3)] * 2


def test_a_hugging_face_model_of_images(tmp_path):
    sizes = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    ViTModel(ViTConfig(**sizes, image_size=16, patch_size=4)).save_pretrained(tmp_path)
    done = command("--model", tmp_path)
    assert done.exit_code == 2 and "with its tokenizer or image processor; got" in " ".join(done.output.split())
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    Image.new("L", (20, 30), 90).save(tmp_path / "grey.png")
    for given in ((), ("--input", tmp_path / "grey.png")):
        done = command("--model", tmp_path, *given)
        assert done.exit_code == 0 and "4 heads, each the optimum of an SVR with 17 keys" in done.output, done.output
    (tmp_path / "text.png").write_text("no image")
    done = command("--model", tmp_path, "--input", tmp_path / "text.png")
    assert done.exit_code == 2 and "text.png: expected an image; got" in " ".join(done.output.split()), done.output


def test_a_trained_model(tmp_path):
    done = command("--model", "pretrained:JapaneseVowels/bn+sh")
    assert done.exit_code == 0 and "24 heads" in done.output, done.output
    assert "the model sees the first of 370 cases that it was tested on" in " ".join(done.output.split())
    np.savez(tmp_path / "new.npz", X=np.random.default_rng(0).standard_normal((3, 12, 17)))
    done = command("--model", "pretrained:JapaneseVowels/bn+sh", "--input", tmp_path / "new.npz")
    assert f"the model sees the first of 3 cases of {tmp_path / 'new.npz'}" in " ".join(done.output.split())


def test_what_cannot_be_certified_is_one_line(model_folder, tmp_path, motions):
    long, empty = tmp_path / "long.txt", tmp_path / "empty.txt"
    long.write_text("a " * 81)
    empty.write_text(" \n")
    begun, _ = begin(TINY, "bn", 0, motions, tmp_path / "runs", this_process())
    for words, message in (
        (["--model", begun], "expected a finished run, RUNS/DATA/ATTENTION/SEED with config.json, result.json"),
        (["--model", tmp_path], "expected a finished run, pretrained:DATA/ATTENTION, or the folder of"),
        (["--model", model_folder, "--input", long], "expected at most 80 tokens, which the model takes; got 81"),
        (["--model", model_folder, "--input", empty], "expected text; got none"),
        (
            ["--model", model_folder, "--input", tmp_path / "missing"],
            "missing: expected a file of text in UTF-8; got [Errno 2] No such file",
        ),
        (["--model", "pretrained:Nothing/bn"], "Nothing"),
        (["--model", model_folder, "--keys", long], "expected --keys, --values and --primal of a head, or --model"),
        ([], "expected --keys, --values and --primal of a head, or --model"),
    ):
        done = command(*words)
        assert done.exit_code == 2 and message in " ".join(done.output.split()), done.output
        assert done.output.count("error:") == 1
