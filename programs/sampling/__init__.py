"""Sample the training sessions that knowledge is distilled from."""
