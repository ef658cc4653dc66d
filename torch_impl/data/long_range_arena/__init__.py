"""Three tasks of the Long Range Arena as sequences of tokens."""
