"""The words: policy packs, the prompts built from them, and readers of replies. Pure functions."""
