"""One study over knowledge and fusion: the space, the trials, and what they share.

Importing this package loads nothing heavy.
"""
