"""Experts over a frozen student, and what weighs them."""
