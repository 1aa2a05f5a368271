"""`study_paper`: both papers' questions, each as a search over a fixed grid, and its report.

Importing this package loads nothing heavy.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
