"""Order: which work is done when. Prefect and the command line, nothing else."""
