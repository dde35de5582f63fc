"""image: a U-Net on the diffusion core that text shares."""
