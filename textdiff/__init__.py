"""textdiff: Gaussian diffusion for text and images on one shared core."""

__version__ = "0.1.0"
