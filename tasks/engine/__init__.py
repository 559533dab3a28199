"""Engines: requests to a model, its samples, and the actors that hold models."""
