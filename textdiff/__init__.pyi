from textdiff.text.pipeline import TextDiffusion as TextDiffusion

__version__: str
