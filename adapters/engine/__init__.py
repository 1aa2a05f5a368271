"""The student as an engine of ``dspy.LM``: batching, prefix cache, constrained decoding."""
