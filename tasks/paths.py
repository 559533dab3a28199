"""Where a name in a recipe is looked up."""

from pathlib import Path

PROJECT = Path(__file__).parents[1]
