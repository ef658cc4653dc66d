"""Parts that a user writes: what they may not be is said at once."""

from dataclasses import dataclass

import autograd.numpy as np
import pytest

from primal_dual import (
    Causal,
    Exponential,
    Heads,
    Primal,
    attention,
    certify,
    heads,
    register_attention,
    solve_dual,
    solve_primal,
)
from primal_dual.primal import catalog
from primal_dual.supports import Everything

X, Y = np.random.default_rng(0).standard_normal((2, 11, 3))


@dataclass(frozen=True)
class PrefixLM(Causal):
    def sees(self, i, j):
        return (j <= i) | (j < 4)


@dataclass(frozen=True)
class Steep(Exponential):
    def log_gram(self, x, y):
        return 2 * super().log_gram(x, y)


@pytest.mark.parametrize(("field", "part"), [("support", PrefixLM()), ("kernel", Steep())])
def test_a_part_that_inherits_from_another_is_refused(field, part):
    """Its parent's quick formulas would take the place of its own."""
    with pytest.raises(ValueError, match=f"expected a part that is written whole; got {type(part).__name__}.*inherits"):
        Primal(**{field: part})


@dataclass(frozen=True)
class Differences:
    def fit(self, keys, valid):
        return lambda x: np.concatenate([x[..., :1, :], x[..., 1:, :] - x[..., :-1, :]], axis=-2)


@dataclass(frozen=True)
class Fixed:
    def fit(self, keys, valid):
        return lambda x: keys


@dataclass(frozen=True)
class Transformed:
    def fit(self, keys, valid):
        return keys


WRONG_TRANSFORMS = {
    Differences(): "Differences.*expected T to act on each token by itself; got one that mixes tokens",
    Fixed(): r"Fixed.*expected T x \(\.\.\., 1, D\); got \(2, 5, 3\)",
    Transformed(): "Transformed.*expected that fit returns the function x -> T x; got",
}


@pytest.mark.parametrize("transform", WRONG_TRANSFORMS, ids=lambda each: type(each).__name__)
def test_a_transform_that_is_none_is_refused(transform):
    primal = Primal(transform=transform)
    for call in (
        lambda: attention(primal, X, X, Y),
        lambda: solve_dual(primal, X, Y, C=1, epsilon=0.1),
        lambda: certify(primal, X, Y),
    ):
        with pytest.raises(ValueError, match=WRONG_TRANSFORMS[transform]):
            call()


@dataclass(frozen=True)
class OneDeviation:
    """That of all numbers, so also of other sequences where there are several."""

    def fit(self, keys, valid):
        return lambda x: x / keys.std()


@dataclass(frozen=True)
class Untrue:
    independent_of_keys = True

    def fit(self, keys, valid):
        return lambda x: x - keys.mean(axis=-2, keepdims=True)


def test_a_transform_that_would_mix_sequences_is_refused():
    for support in (Everything(), Causal()):
        with pytest.raises(ValueError, match=r"OneDeviation.*expected T to act on each sequence by itself"):
            attention(Primal(transform=OneDeviation(), support=support), X, X, Y)


@pytest.mark.parametrize("support", [Everything(), Causal()])
def test_a_transform_that_depends_on_the_keys_and_denies_it_is_refused(support):
    with pytest.raises(ValueError, match=r"Untrue.*expected T that does not depend on the keys, as it says"):
        attention(Primal(transform=Untrue(), support=support), X, X, Y)


@dataclass(frozen=True)
class Weighted:
    weights: np.ndarray

    def fit(self, keys, valid):
        return lambda x: x * self.weights


@dataclass(frozen=True)
class MixedUp:
    """The matrix of y and x, which is that of x and y where they are the same."""

    def log_gram(self, x, y):
        return y @ np.swapaxes(x, -1, -2)


@dataclass(frozen=True)
class TooFew:
    """Features that are not those of the kernel, or not as many as it says."""

    power: float
    count: int

    def feature_count(self, dimension):
        return self.count

    def features(self, x):
        return np.logaddexp(0.0, x) ** self.power

    def log_gram(self, x, y):
        return np.log(np.logaddexp(0.0, x) @ np.swapaxes(np.logaddexp(0.0, y), -1, -2))


def test_a_kernel_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"MixedUp.*in row i and column j; got \(11, 1\) for 1 and 11 points"):
        certify(Primal(MixedUp()), X, Y)
    for kernel, got in (
        (TooFew(1.3, 3), r"expected 3 features.*; got 3, off by \d"),
        (TooFew(1.0, 4), "got 3, off by 0"),
    ):
        with pytest.raises(ValueError, match=got):
            solve_primal(Primal(kernel), X, Y, C=1, epsilon=0.1)
    assert solve_primal(Primal(TooFew(1.0, 3)), X, Y, C=1, epsilon=0.1).value > 0


def test_heads_need_parts_that_can_be_compared():
    with pytest.raises(
        ValueError, match="Heads: expected parts that are frozen dataclasses of numbers and tuples; got"
    ):
        Heads(Primal(transform=Weighted(np.ones(3))))


def test_a_registered_name_stands_for_its_primal_alone():
    """Scales differ from head to head under built-in names only."""
    coarse = Primal(scale=16)
    register_attention("coarse", coarse)
    try:
        assert list(heads("coarse", 4)) == [coarse] * 4
    finally:
        del catalog["coarse"]
    assert [each.scale for each in heads("sh", 4)] == [1, 2, 4, 8]
