"""Image diffusion: a U-Net on the diffusion core that text and images share."""
