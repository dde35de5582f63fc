"""Our samplers agree with the pipelines of diffusers, on a U-Net of diffusers."""

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from torch.testing import assert_close

from textdiff.diffusion.discrete import Chain
from textdiff.diffusion.gaussian import Prediction, from_eps
from textdiff.diffusion.samplers import ddim, ddpm
from textdiff.diffusion.wrappers import clamped

# diffusers itself causes this warning
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SPACED = {"timestep_spacing": "trailing", "clip_sample": True}


@pytest.fixture(scope="module")
def unet() -> UNet2DModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )
    return net.eval()


@pytest.mark.parametrize(
    ("sampler", "pipeline", "scheduler", "options"),
    [
        (ddpm, DDPMPipeline, DDPMScheduler(1000, **SPACED), {}),
        (ddim, DDIMPipeline, DDIMScheduler(1000, **SPACED), {"eta": 0.0}),
        (ddim, DDIMPipeline, DDIMScheduler(1000, **SPACED), {"eta": 0.7}),
    ],
    ids=["ddpm", "ddim", "ddim with noise"],
)
def test_sampler_draws_the_images_of_its_pipeline(unet, sampler, pipeline, scheduler, options):
    pipe = pipeline(unet, scheduler)
    pipe.set_progress_bar_config(disable=True)
    # eps is computed from the clipped x0, as it is here
    consistent = {"use_clipped_model_output": True} if sampler is ddim else {}
    rng = torch.Generator().manual_seed(1)
    settings = {"batch_size": 3, "num_inference_steps": 20, "output_type": "np"}
    expected = pipe(generator=rng, **settings, **options, **consistent).images

    chain = Chain.from_betas(pipe.scheduler.betas)
    timestep = {float(logsnr): t for t, logsnr in enumerate(chain.logsnr[1:].float())}
    logsnrs = torch.cat([chain.logsnr[pipe.scheduler.timesteps + 1], chain.logsnr[:1]]).float()

    def denoise(x_t: torch.Tensor, logsnr: torch.Tensor) -> Prediction:
        return from_eps(x_t, unet(x_t, timestep[float(logsnr[0])]).sample, logsnr)

    rng.manual_seed(1)
    with torch.no_grad():
        x = torch.randn(3, 1, 8, 8, generator=rng)
        clipped = clamped(denoise, lambda x0: x0.clamp(-1, 1))
        *_, last = sampler(clipped, x, logsnrs, generator=rng, **options)
    found = (last.x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert_close(found, torch.from_numpy(expected), atol=2e-4, rtol=0)
