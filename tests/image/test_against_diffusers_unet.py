"""Our samplers with a U-Net of diffusers as the denoiser draw the images that its own pipelines draw."""

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from torch.testing import assert_close

from textdiff.diffusion.chain import Chain
from textdiff.diffusion.gaussian import from_eps
from textdiff.diffusion.samplers import ddim, ddpm
from textdiff.diffusion.wrappers import clamped

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers
SPACED = {"timestep_spacing": "trailing", "clip_sample": True}


@pytest.fixture(scope="module")
def unet() -> UNet2DModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kinds = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
        net = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, **kinds)
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
def test_our_sampler_draws_the_images_of_their_pipeline(unet, sampler, pipeline, scheduler, options):
    pipe = pipeline(unet, scheduler)
    pipe.set_progress_bar_config(disable=True)
    consistent = {"use_clipped_model_output": True} if sampler is ddim else {}  # eps belongs to the clipped x0, as it does here
    dice = torch.Generator().manual_seed(1)
    theirs = pipe(batch_size=3, generator=dice, num_inference_steps=20, output_type="np", **options, **consistent).images

    chain = Chain.from_betas(pipe.scheduler.betas)
    steps = {float(level): t for t, level in enumerate(chain.logsnr[1:].float())}
    logsnrs = torch.cat([chain.logsnr[pipe.scheduler.timesteps + 1], chain.logsnr[:1]]).float()
    dice.manual_seed(1)
    with torch.no_grad():
        x = torch.randn(3, 1, 8, 8, generator=dice)
        denoise = clamped(lambda x_t, logsnr: from_eps(x_t, logsnr, unet(x_t, steps[float(logsnr[0])]).sample), lambda x0: x0.clamp(-1, 1))
        *_, last = sampler(denoise, x, logsnrs, generator=dice, **options)
    assert_close((last.x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), torch.from_numpy(theirs), atol=2e-4, rtol=0)
