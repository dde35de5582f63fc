"""The diffusion core: pure tensor math over `(b, *d)` tensors.

It imports torch, the standard library and jaxtyping, and knows no model, text, image, configuration, file or device.
Import the module that defines the name: `from textdiff.diffusion.gaussian import diffuse`.
"""
