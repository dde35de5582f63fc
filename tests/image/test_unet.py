"""Laws of the U-Net: shapes, dependence on its inputs, dropout and gradients."""

from collections.abc import Sequence

import pytest
import torch
from torch.testing import assert_close

from image.unet import AdaGroupNorm, UNet


def unet(
    channels: int = 1,
    classes: int = 0,
    dropout: float = 0.0,
    perturbed: bool = True,
    multipliers: Sequence[int] = (1, 2),
    logsnr_range: tuple[float, float] | None = None,
) -> UNet:
    attention_levels = (1,) if len(multipliers) > 1 else (0,)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet(channels, 8, multipliers, 1, attention_levels, classes, dropout, logsnr_range)
        if perturbed:
            for parameter in net.parameters():
                parameter.data += 0.05 * torch.randn(parameter.shape)
    return net


def noisy(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise and log SNRs."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return noise, torch.linspace(-6, 6, shape[0])


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 2, 3)])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (7, 7), (9, 14), (5, 16)])
@pytest.mark.parametrize("channels", [1, 3])
def test_output_has_the_size_of_the_input(channels, size, multipliers):
    x, logsnr = noisy(2, channels, *size)
    assert unet(channels, multipliers=multipliers)(x, logsnr).shape == x.shape


def test_output_is_zero_at_initialization():
    x, logsnr = noisy(2, 1, 8, 8)
    assert not unet(perturbed=False)(x, logsnr).any()


def test_image_is_independent_of_its_batch():
    net, (x, logsnr) = unet(), noisy(3, 1, 8, 8)
    assert_close(net(x, logsnr)[1:2], net(x[1:2], logsnr[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("what", ["noise", "class", "far corner"])
def test_output_depends_on(what):
    net, (x, logsnr) = unet(classes=3), noisy(2, 1, 8, 8)
    label = torch.tensor([0, 1])
    corner = x.clone()
    corner[:, :, 7, 7] += 1
    changed = {
        "noise": (x, logsnr + 1, label),
        "class": (x, logsnr, label + 1),
        "far corner": (corner, logsnr, label),
    }
    before, after = (net(*each)[:, :, 0, 0] for each in ((x, logsnr, label), changed[what]))
    assert not torch.allclose(before, after, atol=1e-6)


def test_unknown_class_follows_the_last_class():
    net, (x, logsnr) = unet(classes=3), noisy(2, 1, 8, 8)
    assert torch.equal(net(x, logsnr), net(x, logsnr, torch.tensor([3, 3])))


def test_dropout_is_a_function_of_the_index():
    net, (x, logsnr) = unet(dropout=0.5), noisy(2, 1, 8, 8)
    indices = (torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([2, 3]), None)
    first, again, other, none = (net(x, logsnr, None, index) for index in indices)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(none, unet()(x, logsnr))


def test_adaptive_group_norm_is_gain_and_shift():
    """It equals a group norm, whose output has a gain and a shift for each image."""
    norm = AdaGroupNorm(64, 5)
    torch.nn.init.normal_(norm.modulation.weight)
    h, cond = noisy(3, 64, 4, 4)[0], torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    gain, shift = norm.modulation(cond)[:, :, None, None].chunk(2, 1)
    expected = torch.nn.functional.group_norm(h, 16) * (1 + gain) + shift
    assert_close(norm(h, cond), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("logsnr_range", [None, (-9.0, 10.0)], ids=["one", "own"])
def test_every_parameter_gets_a_gradient(logsnr_range):
    net, (x, logsnr) = unet(classes=3, logsnr_range=logsnr_range), noisy(2, 1, 8, 8)
    logsnr = torch.linspace(-9, 10, 128).view(2, 1, 8, 8) if logsnr_range else logsnr
    net(x, logsnr, torch.tensor([0, 1])).square().sum().backward()
    parameters = dict(net.named_parameters())
    assert not [name for name, p in parameters.items() if p.grad is None or not p.grad.any()]
