"""The diffusion core: pure tensor math on tensors of shape `(b, *d)`.

It imports torch, the standard library and jaxtyping only. Models, text, images, configuration,
files and devices are handled elsewhere. Import a name from the module that defines it:
`from textdiff.diffusion.gaussian import diffuse`.
"""
