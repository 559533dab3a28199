"""One file for each module; names of tests are claims."""
