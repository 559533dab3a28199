"""Data: prompts → completions → judgements → examples."""
