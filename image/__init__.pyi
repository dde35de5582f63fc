from image.pipeline import ImageDiffusion as ImageDiffusion
