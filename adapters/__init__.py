"""The student as a language model: LoRA experts, the router that fuses them, and serving them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
