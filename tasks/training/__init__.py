"""Training: examples → checkpoints."""
