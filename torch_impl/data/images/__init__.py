"""Images as tensors: where they are, how they are decoded, and how they are changed in training."""
