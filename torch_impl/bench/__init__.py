"""Benchmarks of attention and of training, each as ratios to a baseline inside one run."""
