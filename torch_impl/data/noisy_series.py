"""Time series as a noisier sensor would record them, to compare models on."""

import numpy as np
import torch

from torch_impl.data.dataset import DataSet, Split


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


def _with_noise(split: Split, deviation: float, generator: np.random.Generator) -> Split:
    noise = torch.from_numpy(generator.normal(0, deviation, split.inputs.shape)).float()
    if split.key_mask is not None:
        noise *= split.key_mask[..., None]
    return Split(split.inputs + noise, split.key_mask, split.labels)
