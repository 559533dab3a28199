"""Evaluation: checkpoints → answers → grades."""
