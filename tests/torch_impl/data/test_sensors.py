"""Time series as another sensor would record them."""

import numpy as np
import pytest
import torch

from torch_impl.data.dataset import DataSet, Split
from torch_impl.data.sensors import noisy, oversampled
from torch_impl.data.series import load_series
from torch_impl.training.recipes.benchmarks import recipe


@pytest.fixture(scope="module")
def vowels():
    return load_series("JapaneseVowels")


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_new_steps_lie_on_straight_lines_between_the_old_ones(vowels, factor):
    data = oversampled(vowels, factor)
    assert data.sizes == vowels.sizes | {"length": data.train.inputs.shape[1]}
    for old, new in ((vowels.train, data.train), (vowels.test, data.test)):
        for x, tokens, y, new_tokens in zip(
            old.inputs, old.key_mask.sum(1).tolist(), new.inputs, new.key_mask, strict=True
        ):
            count = factor * (tokens - 1) + 1
            assert new_tokens.tolist() == [i < count for i in range(len(y))] and not y[count:].any()
            time = np.arange(count) / factor
            lines = [np.interp(time, np.arange(tokens), feature) for feature in x[:tokens].numpy().T]
            np.testing.assert_allclose(y[:count].T, lines, rtol=0, atol=1e-6)
            assert torch.equal(y[:count:factor], x[:tokens])


def test_without_padding_there_is_none_afterwards():
    split = Split(torch.randn(2, 5, 3), None, torch.tensor([0, 1]))
    assert oversampled(DataSet("mine", split, split, ("a", "b"), {"length": 5}, [], []), 3).test.key_mask is None


def test_a_recipe_oversamples_before_it_adds_noise(vowels):
    """So that new steps have noise of their own."""
    data = recipe("JapaneseVowels", oversample=2, noise=3.0).load(None, [].append)
    expected = noisy(oversampled(vowels, 2), 3.0)
    assert all(torch.equal(x, y) for x, y in zip(data.train, expected.train, strict=True))
    assert data.fingerprint() == expected.fingerprint() != vowels.fingerprint()
    assert recipe("JapaneseVowels").load(None, [].append).fingerprint() == vowels.fingerprint()


def test_the_factor_is_a_positive_whole_number():
    with pytest.raises(ValueError, match="oversample: expected 1 to 100; got 0"):
        recipe("JapaneseVowels", oversample=0)
