"""The models that are trained: encoders of series and of tokens, and a vision transformer, with any attention."""
