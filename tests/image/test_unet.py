import pytest
import torch
from torch.testing import assert_close

from image.unet import SteeredNorm, UNet


def unet(channels: int = 1, classes: int = 0, dropout: float = 0.0, shaken: bool = True, multipliers=(1, 2)) -> UNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet(channels, 8, multipliers, 1, (1,) if len(multipliers) > 1 else (0,), classes, dropout)
        if shaken:
            for parameter in net.parameters():
                parameter.data += 0.05 * torch.randn(parameter.shape)
    return net


def noisy(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)), torch.linspace(-6, 6, shape[0])


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 2, 3)])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (7, 7), (9, 14), (5, 16)])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_any_size_comes_out_as_it_went_in(channels, size, multipliers):
    x, logsnr = noisy(2, channels, *size)
    assert unet(channels, multipliers=multipliers)(x, logsnr).shape == x.shape


def test_it_puts_out_zero_at_first():
    x, logsnr = noisy(2, 1, 8, 8)
    assert not unet(shaken=False)(x, logsnr).any()


def test_an_image_does_not_depend_on_its_companions():
    net, (x, logsnr) = unet(), noisy(3, 1, 8, 8)
    assert_close(net(x, logsnr)[1:2], net(x[1:2], logsnr[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("what", ["noise", "class", "far corner"])
def test_the_output_depends_on(what):
    net, (x, logsnr) = unet(classes=3), noisy(2, 1, 8, 8)
    label = torch.tensor([0, 1])
    changed = x.clone()
    changed[:, :, 7, 7] += 1
    others = {"noise": (x, logsnr + 1, label), "class": (x, logsnr, label + 1), "far corner": (changed, logsnr, label)}
    assert not torch.allclose(net(x, logsnr, label)[:, :, 0, 0], net(*others[what])[:, :, 0, 0], atol=1e-6)


def test_an_unknown_class_is_the_one_after_the_last():
    net, (x, logsnr) = unet(classes=3), noisy(2, 1, 8, 8)
    assert torch.equal(net(x, logsnr), net(x, logsnr, torch.tensor([3, 3])))


def test_dropout_is_a_function_of_the_images_number():
    net, (x, logsnr) = unet(dropout=0.5), noisy(2, 1, 8, 8)
    first, again, other, none = (net(x, logsnr, None, index) for index in (torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([2, 3]), None))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(none, unet()(x, logsnr))


def test_the_steered_norm_is_a_group_norm_with_a_gain_and_a_shift_for_each_image():
    norm = SteeredNorm(64, 5)
    torch.nn.init.normal_(norm.modulation.weight)
    h, level = noisy(3, 64, 4, 4)[0], torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    gain, shift = norm.modulation(level)[:, :, None, None].chunk(2, 1)
    assert_close(norm(h, level), torch.nn.functional.group_norm(h, 16) * (1 + gain) + shift, atol=1e-5, rtol=1e-5)


def test_every_parameter_gets_a_gradient():
    net, (x, logsnr) = unet(classes=3), noisy(2, 1, 8, 8)
    net(x, logsnr, torch.tensor([0, 1])).square().sum().backward()
    assert not [name for name, parameter in net.named_parameters() if parameter.grad is None or not parameter.grad.any()]
