"""The page on which people look at a warehouse, and review what lies in it."""
