"""Augmentation of time series in training: time warping, scaling, mixing of features, and noise."""

import torch
import torch.nn.functional as F

from primal_dual.types import Bool, Float

KNOTS = 5  # points in time at which a random speed is drawn


def augment_series(
    series: Float[torch.Tensor, "n N features"],
    key_mask: Bool[torch.Tensor, "n N"] | None,
    *,
    warp: float = 0.0,
    scale: float = 0.0,
    mix: float = 0.0,
    jitter: float = 0.0,
) -> Float[torch.Tensor, "n N features"]:
    """Change each series at random: first its pace, then the size of its features, their mixture, and every value.

    With Z standing for independent standard normal numbers, a series is read at the speed exp(warp Z) at five points in
    time, linear in between; each feature is multiplied by exp(scale Z); the features go through the linear map
    I + mix Z / sqrt(features), as if a sensor were held in another way; and jitter Z is added to each value.

    Parameters
    ----------
    series : tensor, (n, N, features)
        The examples. Random numbers are drawn by torch on their device.
    key_mask : tensor of booleans, (n, N), or None
        The padding mask, True for a time step.
    warp, scale, mix, jitter : float
        The standard deviations in the formulas above; 0 for no change.

    Returns
    -------
    tensor, (n, N, features)
        The changed examples. Each keeps its length, its first and its last time step under warping.

    Examples
    --------
    >>> series = torch.arange(6.0).view(1, 6, 1)
    >>> warped = augment_series(series, None, warp=0.5)
    >>> warped[0, 0].item(), round(warped[0, -1].item(), 5)
    (0.0, 5.0)
    """
    n, _, features = series.shape
    if warp:
        series = _warped(series, key_mask, warp)
    if scale:
        series = series * (scale * torch.randn(n, 1, features, device=series.device)).exp()
    if mix:
        series = series + series @ (mix / features**0.5 * torch.randn(n, features, features, device=series.device))
    if jitter:
        series = series + jitter * torch.randn_like(series)
    return series


def _warped(
    series: Float[torch.Tensor, "n N features"], key_mask: Bool[torch.Tensor, "n N"] | None, warp: float
) -> Float[torch.Tensor, "n N features"]:
    """Read each series at positions that advance at a random speed, interpolating linearly between time steps."""
    n, N, features = series.shape
    length = torch.full((n,), N, device=series.device) if key_mask is None else key_mask.sum(-1)
    speed_at_knots = (warp * torch.randn(n, 1, KNOTS, device=series.device)).exp()
    speed = F.interpolate(speed_at_knots, N, mode="linear", align_corners=True)[:, 0]
    valid = torch.arange(N, device=series.device) < length[:, None]
    elapsed = (speed * valid).cumsum(-1)
    elapsed = (elapsed - elapsed[:, :1]) / (elapsed[:, -1:] - elapsed[:, :1]).clamp_min(1e-6)  # from 0 to 1
    position = (elapsed * (length[:, None] - 1)).clamp(0, N - 1)
    left = position.floor().long().clamp_max(max(N - 2, 0))
    right = (left + 1).clamp_max(N - 1)
    fraction = (position - left)[..., None]
    at_left = series.gather(1, left[..., None].expand(-1, -1, features))
    at_right = series.gather(1, right[..., None].expand(-1, -1, features))
    return (at_left + fraction * (at_right - at_left)) * valid[..., None]
