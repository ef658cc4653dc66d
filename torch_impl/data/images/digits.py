"""scikit-learn's digits: 1,797 grey images of 8 x 8 pixels, which need no download."""

import numpy as np

from torch_impl.data.images.source import ImageSource, array_source


def digit_sources() -> tuple[ImageSource, ImageSource]:
    """A training and a test split of the digits: of each class, every third image is for the test.

    Examples
    --------
    >>> train, test = digit_sources()
    >>> len(train.labels), len(test.labels)
    (1201, 596)
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * 255 / 16).astype(np.uint8)
    is_class = data.target[:, None] == np.arange(10)
    rank = is_class.cumsum(0)[is_class]  # of each image among those of its class, from 1
    train, test = np.flatnonzero(rank % 3), np.flatnonzero(rank % 3 == 0)
    return (
        array_source("train", images[train], [str(label) for label in data.target[train]]),
        array_source("test", images[test], [str(label) for label in data.target[test]]),
    )
