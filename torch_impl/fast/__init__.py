"""Ways to evaluate attention fast: `dispatch.py` chooses, and says what each of the other files is for."""
