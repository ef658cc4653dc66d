"""Tutorials: percent scripts, from ridge regression to an attention of your own. See `primal_dual.tutorials`."""
