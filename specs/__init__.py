"""Words: policy packs, the prompts built from them, and the reading of replies. Pure functions."""
