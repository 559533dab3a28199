"""Engines: what a model is asked and what it gives, and the actors that hold models."""
