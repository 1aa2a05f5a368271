"""How alike titles, items and sessions are: encoders, dendrograms and pairs."""
