"""Augmentation of time series: what is padding stays so, ends stay where they are, and time goes on."""

import pytest
import torch

from torch_impl.data.series_augmentation import augment_series


def test_augmentation():
    torch.manual_seed(0)
    series = torch.linspace(0, 1, 20)[None, :, None].expand(50, -1, 2).contiguous()
    key_mask = torch.arange(20) < torch.randint(2, 21, (50, 1))
    series = series * key_mask[..., None]
    assert torch.equal(augment_series(series, key_mask), series)
    warped = augment_series(series, key_mask, warp=0.5)
    assert (warped[~key_mask] == 0).all() and not torch.allclose(warped, series)
    last = key_mask.sum(1) - 1
    rows = torch.arange(50)
    torch.testing.assert_close(warped[rows, last], series[rows, last])
    torch.testing.assert_close(warped[:, 0], series[:, 0])
    steps = warped[:, 1:, 0] - warped[:, :-1, 0]
    assert (steps[key_mask[:, 1:]] > 0).all()  # time goes on
    torch.testing.assert_close(augment_series(series, key_mask, warp=1e-6), series, atol=1e-5, rtol=0)
    scaled = augment_series(series, key_mask, scale=0.3) / series
    torch.testing.assert_close(scaled[:, 1], scaled[:, -1].where(key_mask[:, -1:], scaled[:, 1]))
    assert augment_series(series, None, jitter=0.1).sub(series).std().item() == pytest.approx(0.1, rel=0.1)


def test_each_feature_of_each_series_has_a_size_of_its_own():
    torch.manual_seed(0)
    series = torch.rand(500, 20, 3) + 0.5
    logs = (augment_series(series, None, scale=0.3) / series).log()
    torch.testing.assert_close(logs[:, 1:], logs[:, :1].expand(-1, 19, -1), atol=1e-5, rtol=0)
    assert logs[:, 0].std().item() == pytest.approx(0.3, rel=0.1)
    assert abs(torch.corrcoef(logs[:, 0].T) - torch.eye(3)).max() < 0.2


def test_each_series_has_a_mixture_of_its_own():
    torch.manual_seed(0)
    mixed = augment_series(torch.ones(500, 2, 3), None, mix=0.3)
    assert torch.equal(mixed[:, 0], mixed[:, 1])
    assert mixed.std().item() == pytest.approx(0.3, rel=0.1) and mixed[:, 0].std(0).min() > 0.2


def test_each_series_has_a_pace_of_its_own():
    torch.manual_seed(0)
    line = torch.linspace(0, 1, 20)[None, :, None].expand(50, -1, 1).contiguous()
    assert augment_series(line, None, warp=0.5)[:, 10].std() > 0.01
