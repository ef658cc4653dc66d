"""Time series as another sensor would record them, more often or with noise, to compare models on."""

import numpy as np
import torch

from torch_impl.data.dataset import DataSet, Split


def oversampled(data: DataSet, factor: int) -> DataSet:
    """A data set of time series with new steps between each two neighbouring ones, on the straight line between them.

    Parameters
    ----------
    data : DataSet
        As `load_series` returns it.
    factor : int
        How many steps there are for each step of before; of L steps, factor (L - 1) + 1 become.

    Examples
    --------
    >>> split = Split(torch.tensor([[[0.0], [4.0], [2.0]]]), torch.tensor([[True, True, False]]), torch.tensor([0]))
    >>> inputs, key_mask, labels = oversampled(DataSet("mine", split, split, (), {"length": 3}, [], []), 2).train
    >>> inputs[..., 0].tolist(), key_mask.tolist()
    ([[0.0, 2.0, 4.0, 0.0, 0.0]], [[True, True, True, False, False]])
    """
    if factor == 1:
        return data
    assert isinstance(data.train, Split) and isinstance(data.test, Split)
    sizes = data.sizes | {"length": factor * (data.sizes["length"] - 1) + 1}
    return data._replace(
        train=_with_steps_between(data.train, factor), test=_with_steps_between(data.test, factor), sizes=sizes
    )


def noisy(data: DataSet, deviation: float) -> DataSet:
    """A data set of time series with noise on both splits, the same whenever it is called.

    Parameters
    ----------
    data : DataSet
        Of standardised series, as `load_series` returns it.
    deviation : float
        The standard deviation of the normal noise that is added to each value. Padding stays zero.

    Examples
    --------
    >>> from torch_impl.data.series import load_series
    >>> data = load_series("JapaneseVowels")
    >>> change = noisy(data, 2.0).train.inputs - data.train.inputs
    >>> round(change[data.train.key_mask].std().item(), 1), change[~data.train.key_mask].abs().max().item()
    (2.0, 0.0)
    """
    if not deviation:
        return data
    assert isinstance(data.train, Split) and isinstance(data.test, Split)
    generator = np.random.default_rng(0)
    return data._replace(
        train=_with_noise(data.train, deviation, generator), test=_with_noise(data.test, deviation, generator)
    )


def _with_steps_between(split: Split, factor: int) -> Split:
    """A step between two others is a token where both are; what is none is zero."""
    x, key_mask = split.inputs, split.key_mask
    fraction = torch.arange(factor)[:, None] / factor
    between = torch.lerp(x[:, :-1, None], x[:, 1:, None], fraction)  # (n, L - 1, factor, features)
    inputs = torch.cat([between.flatten(1, 2), x[:, -1:]], 1)
    if key_mask is None:
        return Split(inputs, None, split.labels)
    is_token = torch.where(fraction[:, 0] == 0, key_mask[:, :-1, None], key_mask[:, 1:, None])
    key_mask = torch.cat([is_token.flatten(1, 2), key_mask[:, -1:]], 1)
    return Split(inputs * key_mask[..., None], key_mask, split.labels)


def _with_noise(split: Split, deviation: float, generator: np.random.Generator) -> Split:
    noise = torch.from_numpy(generator.normal(0, deviation, split.inputs.shape)).float()
    if split.key_mask is not None:
        noise *= split.key_mask[..., None]
    return Split(split.inputs + noise, split.key_mask, split.labels)
