"""Experts for engines that know nothing of routing."""
