"""Machines: what Precept runs on, and the scale model it can be tried with."""
