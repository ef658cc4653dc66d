"""The features of an SVR as numbers: their inner products are the kernel's."""

import numpy as np
import pytest

from primal_dual import Exponential, Polynomial, Primal, RandomFeatures
from primal_dual.svr.features import Features
from primal_dual.svr.training_sets import training_set

RANDOM = RandomFeatures(20, seed=1)


# At a size of 28, Phi and h of the random features are below what a float can hold.
@pytest.mark.parametrize(("kernel", "size"), [(RANDOM, 1), (RANDOM, 28), (Exponential(), 3), (Polynomial(2, 1.0), 3)])
def test_inner_products_are_the_kernel_over_h(kernel, size):
    train = training_set(Primal(kernel=kernel), size * np.random.default_rng(0).standard_normal((7, 5)), None)
    features = Features.from_training_set(train)
    norms = np.exp(train.log_norms(train.keys))[:, None]
    for z in (features(train.keys), features.at_keys(np.log(2.0)) / np.sqrt(2)):
        np.testing.assert_allclose((z / norms) @ (z / norms).T, train.cosines, atol=1e-12)
