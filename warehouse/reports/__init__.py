"""Reports of evaluations, for people: pages, plots, comparisons and logs."""
