"""Runs: a model trained by a recipe, in a folder of its own that it can go on from."""
