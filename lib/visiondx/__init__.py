"""visiondx: ask in words what a vision model is sensitive to, and see the answer."""

__version__ = "0.1.0"
