"""Reports: what an evaluation says, told to people."""
