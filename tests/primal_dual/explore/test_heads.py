"""Heads of the vowel, of files and of trained models: their certificates are those of the package."""

from dataclasses import replace

import numpy as np
import pytest
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

from primal_dual import Primal, attention, attention_weights, catalog, certify
from primal_dual.cli import model_heads
from primal_dual.explore.head_sources import Files, Vowel
from primal_dual.explore.heads import ALL, HeadState, RealHeads
from tests.primal_dual.explore.test_server import expect_one_line, explore
from tests.primal_dual.explore.test_views import printed
from torch_impl.training.recipes.benchmarks import recipe
from torch_impl.training.runs.trainer import train
from torch_impl.training.trained.finished_run import load_run


def arrays(*lead, N=7, D=3, Dv=2, M=None):
    rng = np.random.default_rng(0)
    shapes = {"keys": (*lead, N, D), "values": (*lead, N, Dv)} | ({"queries": (*lead, M, D)} if M else {})
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("attention", ["softmax", "linear-bn+sh", "conv1d", "causal-sh", "window-bn", "taylor"])
@pytest.mark.parametrize("lead", [(), (2,), (3, 2)])
def test_heads_of_files_have_the_certificate_of_the_package(tmp_path, attention, lead):
    given = arrays(*lead)
    for name, x in given.items():
        np.save(tmp_path / f"{name}.npy", x)
    heads = RealHeads({"mine": Files.load(tmp_path / "keys.npy", tmp_path / "values.npy", None)})
    layer, head = ("3", "2") if len(lead) == 2 else ("1", "2") if lead else ("1", "1")
    state = HeadState(attention=attention, layer=layer, head=head, query=4)
    place = (2, 1)[2 - len(lead) :]
    keys, values = (x[place] for x in given.values())
    found = heads.certified(state)
    certificate = certify(catalog[attention], keys, values)
    assert found.certificate.relative_gap == certificate.relative_gap < 1e-12
    assert heads.readout(state)["Dual value"] == f"{certificate.dual_value * np.exp(certificate.log_scale):.6g}"
    np.testing.assert_array_equal(heads.weights_of_query(state), attention_weights(catalog[attention], keys, keys)[4])
    for each in (state, replace(state, decimals=1, output=2)):
        assert printed(heads.as_python(each)) == heads.readout(each)


def test_the_norm_is_that_of_the_weight_and_dropped_decimals_stay_within_the_bound():
    given = arrays()
    heads = RealHeads({"mine": Files(given, "")})
    K = np.exp(given["keys"] @ given["keys"].T / np.sqrt(3))
    W = np.sqrt(np.einsum("id,ij,jd", given["values"], K, given["values"]))
    np.testing.assert_allclose(heads.certified(HeadState()).norm, W, rtol=1e-12)
    for decimals in range(1, ALL):
        found = heads.certified(HeadState(decimals=decimals))
        assert 0 < found.error <= found.bound and found.certificate.feasibility < 1e-12
        f = [attention(Primal(), given["keys"], given["keys"], v) for v in (given["values"], found.values)]
        np.testing.assert_allclose(np.linalg.norm(f[0] - f[1], axis=1).max(), found.error, rtol=1e-6)


def test_one_file_may_have_queries(tmp_path):
    given = arrays(2, M=5)
    np.savez(tmp_path / "head.npz", **given)
    heads = RealHeads({"mine": Files.load(None, None, tmp_path / "head.npz")})
    state = HeadState(head="2", query=4)
    expected = attention_weights(Primal(), given["queries"][1], given["keys"][1])
    np.testing.assert_array_equal(heads.certified(state).weights, expected)
    assert printed(heads.as_python(state)) == heads.readout(state)


def test_a_vowel_has_frames_that_are_no_support_vectors_and_scaled_heads_have_half_the_points():
    heads = RealHeads({"vowel": Vowel()})
    found = heads.certified(HeadState())
    assert found.certificate.relative_gap < 1e-12 and all((found.kinds(output) == 0).any() for output in range(12))
    assert len(heads.certified(HeadState(attention="sh")).size) == 13 == -(-len(found.size) // 2)
    with pytest.raises(ValueError, match="Head of: expected vowel; got mine"):
        heads.readout(HeadState(source="mine"))


def test_a_head_of_a_trained_model_is_certified():
    heads = RealHeads(model_heads.sources())
    state = HeadState(attention="softmax", layer="2", head="6")
    options = heads.options(state)
    assert options["attention"] == ["bn+sh", "softmax"]
    assert options["layer"] == ["1", "2", "3"] and options["head"][-1] == "8"
    assert heads.head(state).primal.scale == 1 and heads.head(replace(state, attention="bn+sh")).primal.scale == 2
    assert heads.certified(state).certificate.relative_gap < 1e-12
    assert printed(heads.as_python(state)) == heads.readout(state)


def test_a_hugging_face_model_and_a_causal_one(tmp_path):
    sizes = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    ViTModel(ViTConfig(**sizes, image_size=16, patch_size=4)).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    heads = RealHeads({"your model": model_heads.OneModel(str(tmp_path))})
    state = HeadState(layer="2", head="2")
    assert heads.options(state)["layer"] == ["1", "2"] and len(heads.head(state).keys) == 17
    assert heads.certified(state).certificate.relative_gap < 1e-12
    assert printed(heads.as_python(state)) == heads.readout(state)


def test_a_head_has_the_beta_that_it_has_learned(tmp_path):
    chosen = recipe("BasicMotions", epochs=1, layers=1, width=8, num_heads=2, feedforward=8, lr=0.1, learn_beta=True)
    train(chosen, "bn", 0, chosen.load(None, print), tmp_path)
    folder = tmp_path / "BasicMotions" / "bn" / "0"
    learned = load_run(folder).model.blocks[0].beta.tolist()
    heads = RealHeads({"your model": model_heads.OneModel(str(folder))})
    state = HeadState(layer="1", head="2")
    assert heads.head(state).primal.transform[0].beta == learned[1] and abs(learned[1] - 1) > 0.01
    assert printed(heads.as_python(state)) == heads.readout(state)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"values": np.ones((6, 2))}, r"values: expected shape \(7, 'Dv'\), as the keys have; got \(6, 2\)"),
        ({"values": np.ones((1, 7, 2))}, r"values: expected shape \(7, 'Dv'\), as the keys have; got \(1, 7, 2\)"),
        ({"queries": np.ones((5, 2))}, r"queries: expected shape \('M', 3\), as the keys have; got \(5, 2\)"),
        ({"keys": np.full((7, 3), np.nan)}, "keys: expected finite numbers; got 21 NaN or infinite"),
        ({"keys": np.ones((1, 1, 1, 7, 3))}, "keys: expected .* with N of at most 512; got "),
        ({"keys": np.ones((513, 3))}, "keys: expected .* with N of at most 512; got "),
        ({"keys": np.array(["a"])}, "keys: expected real numbers"),
    ],
)
def test_arrays_that_are_no_heads_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Files(arrays() | change, "")


def test_files_that_are_no_heads_end_in_one_line(tmp_path):
    for name, x in arrays().items():
        np.save(tmp_path / f"{name}.npy", x)
    keys, values = ("--keys", tmp_path / "keys.npy"), ("--values", tmp_path / "values.npy")
    expect_one_line(explore(*keys), "--keys and --values: expected both or none")
    expect_one_line(explore(*keys, *values, tmp_path / "both.npz"), "expected none beside a .npz file")
    expect_one_line(explore(*keys, "--values", tmp_path / "missing.npy"), "missing.npy: expected a .npy file")
    for content in (b"", b"PK\x03\x04 damaged", (tmp_path / "keys.npy").read_bytes()):
        (tmp_path / "both.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"both.npz: expected a .npz file with the arrays keys and values"):
            Files.load(None, None, tmp_path / "both.npz")
    np.savez_compressed(tmp_path / "both.npz", **arrays())
    content = bytearray((tmp_path / "both.npz").read_bytes())
    content[100:140] = bytes(40)  # of the compressed numbers
    (tmp_path / "both.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"both.npz: expected a .npz file with the arrays keys and values"):
        Files.load(None, None, tmp_path / "both.npz")
    np.savez(tmp_path / "both.npz", keys=np.ones((3, 2)))
    expect_one_line(explore(tmp_path / "both.npz"), "both.npz: expected a .npz file with the arrays keys and values")
