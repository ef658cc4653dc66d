"""Plausible but wrong: arrays that mean something else, empty batches, numbers at the edge of what a float holds."""

import os
import stat

import numpy as np
import pytest
import torch

from primal_dual import (
    ConvergenceWarning,
    EluPlusOne,
    Primal,
    attention,
    catalog,
    certify,
    solve_dual,
    solve_primal,
)
from primal_dual.io.files import load_array, write_json
from primal_dual.primal import Heads
from primal_dual.svr.training_sets import training_set

EYE = np.eye(3)
MEANINGS = {
    "numpy.ma array": np.ma.masked_array(EYE, mask=EYE > 0),
    "requires grad": torch.eye(3, requires_grad=True),
    "Sparse layout": torch.eye(3).to_sparse(),
    "ragged list": [[1.0], [2.0, 3.0]],
}


@pytest.mark.parametrize("name", MEANINGS)
def test_arrays_that_mean_something_else_are_refused_by_name(name):
    for call, argument in (
        (lambda x: attention(Primal(), x, EYE, EYE), "q"),
        (lambda x: attention(Primal(), EYE, EYE, x), "v"),
        (lambda x: attention(Primal(), EYE, EYE, EYE, x), "key_mask"),
        (lambda x: certify(Primal(), x, EYE), "keys"),
        (lambda x: solve_dual(Primal(), EYE, x, C=1, epsilon=0), "targets"),
    ):
        with pytest.raises(ValueError, match=rf"{argument}: expected .*{name}"):
            call(MEANINGS[name])


@pytest.mark.parametrize("name", [name for name in catalog if not isinstance(catalog[name], Heads)])
def test_an_empty_batch_gives_an_empty_result(name):
    q, v = np.ones((0, 7, 4)), np.ones((0, 7, 2))
    assert attention(catalog[name], q, q, v).shape == (0, 7, 2)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6, 1e300])
@pytest.mark.parametrize("name", ["softmax", "bn", "sh", "rbf", "window", "linear"])
def test_certificates_at_any_logits(name, size):
    keys = np.sqrt(size) * np.arange(40.0).reshape(10, 4) / 40
    values = np.random.default_rng(0).standard_normal((10, 2))
    certificate = certify(catalog[name], keys, values)
    assert abs(certificate.relative_gap) <= 1e-12 and np.isfinite(certificate.error_bound(keys)).all()


def test_a_weight_that_no_float_holds_is_refused_where_the_dual_predicts():
    keys, targets, x = np.array([[1.0, -900.0], [2.0, -900.0]]), np.array([[1.0], [0.5]]), np.array([[-900.0, 1.0]])
    primal = Primal(EluPlusOne())
    problem = dict(C=training_set(primal, keys).penalty(10), epsilon=0.1)
    dual = solve_dual(primal, keys, targets, **problem)
    with np.errstate(under="ignore"):
        np.testing.assert_allclose(dual.predict(x), attention(primal, x, keys, dual.values))
    with pytest.raises(ValueError, match=r"x: expected Phi\(T x\)/h\(x\) that a float can hold; solve_dual predicts"):
        solve_primal(primal, keys, targets, **problem).predict(x)


def test_targets_near_the_largest_float():
    C = training_set(Primal(), EYE).penalty(10)
    small, large = (solve_dual(Primal(), EYE, t * EYE, C=C * t, epsilon=0.1 * t) for t in (1.0, 1e150))
    np.testing.assert_allclose(large.values, 1e150 * small.values, rtol=1e-9)
    for solve in (solve_dual, solve_primal):
        with pytest.raises(
            ValueError, match=r"targets, C: expected a value that a float can hold; got targets of 1e\+308"
        ):
            solve(Primal(), EYE, 1e308 * EYE, C=C, epsilon=0.1)


@pytest.mark.parametrize("solver", ["CLARABEL", "newton"])
@pytest.mark.parametrize(("seed", "spread"), [(19, 31), (6, 57), (8, 55), (15, 79), (24, 99)])
def test_any_penalty_at_any_spread_of_the_weights(seed, spread, solver):
    """A walk of keys, so that log h(k_j) spans up to 99, and penalties of up to 1e13 medians of h."""
    rng = np.random.default_rng(seed)
    keys = np.cumsum(rng.standard_normal((29, 6)), axis=0) * rng.choice([0.3, 0.6, 1.0])
    targets, train = keys[:, :1] / abs(keys[:, :1]).max(), training_set(Primal(), keys, None)
    assert abs(np.ptp(train.log_h) - spread) < 1
    for C in train.penalty(1) * np.array([1e3, 1e8, 1e13]):
        problem = dict(C=C, epsilon=0.01, solver=solver)
        layer, attention = (
            solve_primal(Primal(), keys, targets, **problem),
            solve_dual(Primal(), keys, targets, **problem),
        )
        assert max(layer.relative_gap, attention.relative_gap) <= 1e-8
        np.testing.assert_allclose(layer.predict(keys), attention.predict(keys), atol=0.02)  # the width of the tube


def test_a_gap_above_1e8_is_a_warning_that_names_it():
    rng = np.random.default_rng(0)
    keys, targets = rng.standard_normal((2, 30, 4))
    problem = dict(C=training_set(Primal(), keys).penalty(10), epsilon=0.1)
    with pytest.warns(ConvergenceWarning, match=r"the relative duality gap is .*log h\(k_j\) spans"):
        solution = solve_dual(Primal(), 12 * keys, targets, **(problem | {"C": 1e200}))
    assert solution.relative_gap > 1e-8


def test_npy_files_are_read_within_limits(tmp_path):
    path = tmp_path / "keys.npy"
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((3, 2))), np.array([[1, 2]])):
        np.save(path, array)
        np.testing.assert_array_equal(load_array(path), array)
    whole = path.read_bytes()
    header = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")

    def promising(shape):
        return header + f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"

    for damaged in (
        whole[:-1],
        whole[:40],
        b"",
        b"PK" + whole,
        promising("(1000000000000, 1000)"),
        promising("(-3, 2)"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"keys.npy: expected a .npy file of numbers; got (a damaged|another format)"
        ):
            load_array(path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"expected a .npy file of numbers; got a pickle"):
        load_array(path)
    pipe = tmp_path / "pipe.npy"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match=r"expected a .npy file of numbers; got no regular file"):
        load_array(pipe)


def test_a_file_that_is_rewritten_keeps_its_permissions(tmp_path):
    path = tmp_path / "private.json"
    write_json(path, [1])
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o600)
    write_json(path, [2])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_text() == "[\n 2\n]\n"
