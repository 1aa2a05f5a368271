"""Teleprompters: they put distilled knowledge into programs, chosen by score on validation."""
