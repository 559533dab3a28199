"""Harbour, the scale model: an invented town, a base model trained on it, and an oracle."""
