"""Which training sessions knowledge is distilled from."""
