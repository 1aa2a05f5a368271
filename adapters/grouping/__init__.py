"""Training of the grouping encoder."""
