"""Running sums over the positions of a causal head give what one position after the other gives."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from primal_dual import BatchNorm, Causal, Convolution, EluPlusOne, Identity, Primal, UnitNorm, certify
from primal_dual.certificates import causal_positions
from primal_dual.certificates.causal_positions import _entries, _RunningSums, gaps_by_running_sums, has_running_sums
from primal_dual.certificates.certificate import _expand
from primal_dual.svr.training_sets import training_set
from tests.problems import kernels, normalizers, primals, seeds

FIXED = st.sampled_from(
    (Identity(), UnitNorm(), Convolution((0.25, 0.5, -0.2)), (Convolution((0.2, 0.5, 0.3)), UnitNorm()))
)
CAUSAL = dict(transforms=FIXED, supports=st.just(Causal()), scales=st.just(1), normalizers=normalizers)


def expansions(primal, keys, values):
    """What the running sums have after each key."""
    train = training_set(primal, keys, len(keys) - 1)
    sums = _RunningSums(train, values)
    for i, row, column in _entries(train):
        sums.add(i, row, column)
        yield i, sums, sums.expansion(i)


def assert_same(primal, keys, values, rtol=1e-10):
    """f, delta and |W|^2 at each position, beside those of that position alone; a sum to rounding of its terms."""
    for i, sums, running in expansions(primal, keys, values):
        train = training_set(primal, keys, i)
        alone, _ = _expand(train, values)
        assert sums.is_sound(i)
        w, top, _, log_h = train.own_rows
        v, terms = abs(values[: i + 1]), abs(w) * np.exp(top - log_h)  # of f; it may cancel
        np.testing.assert_array_less(abs(running.f - alone.f), rtol * (terms @ v) + 1e-300)
        np.testing.assert_allclose(running.delta, alone.delta, rtol=rtol * terms.sum(1).max(), atol=1e-300)
        np.testing.assert_allclose(running.log_h, alone.log_h, rtol=rtol, atol=rtol * terms.sum(1).max())
        size = (v * (abs(w) @ v) * np.exp(top - alone.log_scale)).sum()
        assert abs(running.square - alone.square) <= rtol * terms.sum(1).max() * size
        assert abs(running.log_lengths - alone.log_lengths).max() == 0


def problem(seed, primal, N=23):
    rng = np.random.default_rng(seed)
    keys, values, targets = (rng.standard_normal((N, D)) for D in (3, 2, 2))
    if primal.normalizer == "sum":  # h is not near zero anywhere
        for i in range(N):
            w, _, _, _ = training_set(replace(primal, normalizer="one"), keys, i).own_rows
            assume((abs(w.sum(1)) > 1e-3 * abs(w).sum(1)).all())
    return keys, values, targets


@given(primals(kernels, **CAUSAL), seeds)
@settings(max_examples=60)
def test_the_sums_are_those_of_each_position(primal, seed):
    keys, values, _ = problem(seed, primal)
    assert_same(primal, keys, values)


@given(primals(kernels, **CAUSAL), seeds, st.sampled_from((None, 0.5, 3.0)), st.sampled_from((0.0, 0.3)), st.booleans())
@settings(max_examples=60)
def test_the_gaps_are_those_of_each_position(primal, seed, multiple, epsilon, fitted):
    keys, values, targets = problem(seed, primal)
    C = None if multiple is None else multiple * training_set(primal, keys, 22).penalty(1.0)
    options = dict(C=C, epsilon=epsilon, targets=None if fitted else targets)
    alone = [certify(primal, keys, values, query=i, **options) for i in range(23)]
    gaps = gaps_by_running_sums(primal, keys, values, options["targets"], C, epsilon)
    right = [each.relative_gap for each in alone]
    np.testing.assert_allclose(gaps, right, rtol=1e-8, atol=1e-9 if primal.bias else 1e-10)
    worst = certify(primal, keys, values, **options)
    assert worst.query == np.argmax(gaps) and worst.relative_gap >= max(right) - 1e-9
    np.testing.assert_array_equal(worst.targets, alone[worst.query].targets)


@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
@pytest.mark.parametrize("normalizer", ["sum", "one"])
def test_nothing_overflows(order, normalizer):
    """Logits up to 3,000, whose exponentials no float holds, met in any order: the units rise on the way."""
    rng = np.random.default_rng(0)
    keys, values = 1 + 0.1 * rng.standard_normal((29, 5)), rng.standard_normal((29, 3))
    length = np.linspace(0.1, 80 if normalizer == "sum" else 20, 29)
    length = {"rising": length, "falling": length[::-1], "mixed": rng.permutation(length)}[order]
    keys *= (length / np.linalg.norm(keys, axis=1))[:, None]
    primal = Primal(normalizer=normalizer, support=Causal())
    if normalizer == "sum":
        logits = keys @ keys.T / np.sqrt(5)
        assert logits.max() > 2800 and (order == "falling" or (np.triu(logits) - np.diag(logits)[:, None]).max() > 700)
    assert_same(primal, keys, values)
    gaps = gaps_by_running_sums(primal, keys, values, None, None, 0.0)
    assert abs(gaps).max() < 1e-12


@pytest.mark.parametrize("broken", ["numerator", "denominator", "log_h", "square"])
def test_the_gap_is_a_check(broken, monkeypatch):
    """A mistake of 1e-9 in one of the sums that are made apart shows in the gap."""
    rng = np.random.default_rng(0)
    keys, values = rng.standard_normal((13, 3)), rng.standard_normal((13, 2))
    right = _RunningSums.add

    def add(self, i, row, column):
        right(self, i, row, column)
        if i == 7 and broken == "square":
            self.square *= 1 + 1e-9
        elif i == 7:
            getattr(self, broken)[3] += 1e-9

    monkeypatch.setattr(causal_positions._RunningSums, "add", add)
    gaps = gaps_by_running_sums(Primal(support=Causal()), keys, values, None, None, 0.0)
    assert abs(gaps[:7]).max() < 1e-14 < 1e-12 < abs(gaps[7:]).min()


def test_what_is_refused_is_refused_by_its_position():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((4, 2))
    odd = Primal(BilinearForm(), support=Causal())
    keys = np.array([[1.0, 0.0], [2.0, 0.0], [-3.0, 0.0], [1.0, 1.0]])
    with pytest.raises(ValueError, match="near zero: the terms of"):
        certify(odd, keys, values)
    assert np.isnan(gaps_by_running_sums(odd, keys, values, None, None, 0.0)).tolist() == [False, False, True, False]
    keys[2] = (
        -3 - 4e-12,
        5.0,
    )  # then h of the first two keys is near zero beside all its terms, those of later keys, too
    assert np.isnan(gaps_by_running_sums(odd, keys, values, None, None, 0.0)).tolist() == [False, False, True, False]
    causal = Primal(support=Causal())
    with pytest.raises(ValueError, match="that a float can hold"):
        certify(causal, keys, 1e200 * values)
    with pytest.raises(ValueError, match="targets: expected 4 rows, one a key"):
        certify(causal, keys, values, targets=values[:3])
    with pytest.raises(ValueError, match="as many outputs as the values, 2; got"):
        certify(causal, keys, values, targets=values[:, :1])


class BilinearForm:
    """<Phi(x), Phi(y)> = x.y, which may be negative."""

    def gram(self, x, y):
        return x @ y.swapaxes(-1, -2)


def test_which_have_running_sums():
    causal = Primal(support=Causal())
    assert has_running_sums(causal) and has_running_sums(replace(causal, kernel=EluPlusOne(), transform=UnitNorm()))
    for other in (Primal(), replace(causal, scale=2), replace(causal, transform=(UnitNorm(), BatchNorm()))):
        assert not has_running_sums(other)
