"""AICL, a baseline: in-context learning with self-correction and feedback."""
