"""What is trained: the attention, the model and its training, as one value."""
