"""The stages of a trial: what each makes, from what, and what its key is of."""
