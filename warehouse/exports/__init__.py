"""What leaves the warehouse: data sets and checkpoints as folders, each with a card."""
