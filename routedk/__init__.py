"""RouteDK: shopping sessions to bundles with a small language model.

``__init__.pyi`` lists the public names once; each is loaded when it is first used.
"""

import lazy_loader

__version__ = "0.8.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
