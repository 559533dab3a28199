"""The whole chain on a real language model and public data: its model folder and its own data."""
