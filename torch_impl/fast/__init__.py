"""Ways to evaluate attention fast."""
