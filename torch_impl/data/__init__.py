"""Data sets as tensors: time series, images, and the Long Range Arena."""
