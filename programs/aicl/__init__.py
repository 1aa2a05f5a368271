"""AICL, the peer: in-context learning with self-correction and feedback."""
