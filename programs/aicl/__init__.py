"""AICL, a competing method: in-context learning with self-correction and feedback."""
