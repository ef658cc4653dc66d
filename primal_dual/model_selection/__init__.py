"""How well an SVR predicts, and for which penalty C: leave-one-out, the path of all C, and a regressor."""
