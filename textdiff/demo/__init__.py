"""The page of `textdiff demo`. Its frame knows no text and no images; tabs of models plug in."""
