"""DSPy programs: the prompt layout, the generator and the knowledge it is compiled with.

Importing this package loads neither dspy nor torch; its modules do where they need them.
"""
