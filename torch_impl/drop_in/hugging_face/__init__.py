"""Attention of any primal in Hugging Face's transformers."""
