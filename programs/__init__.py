"""DSPy programs from sessions to bundles, the knowledge in their prompts, and its teachers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
