"""Teleprompters and metrics for DSPy, and `compile_program`; search is in `optimizers.search`.

Importing this package loads neither dspy nor torch: a name is loaded when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
