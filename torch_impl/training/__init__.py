"""Recipes, the trainer, and the runs that they make."""
