"""One study over knowledge, training and prompt: `search`, its space, report and export.

Importing this package loads nothing heavy.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
