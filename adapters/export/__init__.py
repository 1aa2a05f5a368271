"""Experts for engines without routing."""
