"""Recipes, the trainer, and its runs."""
