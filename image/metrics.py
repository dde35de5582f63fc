"""Figures that tell whether an image model works, each a function of images: no one of them is to be trusted alone."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from tqdm import tqdm

from image.model import ImageDiffusion, scaled
from image.sources import Images
from textdiff.counter import normal
from textdiff.device import own_device
from textdiff.diffusion.gaussian import alpha_sigma, diffuse
from textdiff.diffusion.likelihood import discretized_nats, ode_log_prob
from textdiff.levels import bound_but_last, ends

Pixels = UInt8[Tensor, "_ c h w"]
Features = Float[Tensor, "_ f"]

# --- by a classifier


class Classifier(nn.Module):
    """A small convolutional network; `features` is what it has in mind before it decides."""

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()

        def stage(size_in: int, size: int) -> list[nn.Module]:
            convolutions = [nn.Conv2d(size_in, size, 3, padding=1), nn.ReLU(), nn.Conv2d(size, size, 3, padding=1), nn.ReLU()]
            return [*convolutions, nn.BatchNorm2d(size), nn.MaxPool2d(2, ceil_mode=True)]

        stages = nn.Sequential(*stage(channels, width), *stage(width, 2 * width), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.features = nn.Sequential(stages, nn.Linear(32 * width, 128), nn.ReLU())
        self.decide = nn.Sequential(nn.Dropout(0.3), nn.Linear(128, classes))

    def forward(self, pixels: Pixels) -> Float[Tensor, "n k"]:
        return self.decide(self.features(scaled(pixels)))


def train_classifier(images: Images, *, examples: int = 120_000, batch_size: int = 128, seed: int = 0) -> Classifier:
    """A classifier of the images' classes that has seen so many examples, drawn at random; on this process's device."""
    assert images.labels is not None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        device = own_device()
        classifier, steps = Classifier(images.pixels.shape[1], len(images.classes)).to(device).train(), examples // batch_size
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.05)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        for _ in tqdm(range(steps), desc="training a classifier", unit="step", leave=False):
            rows = torch.randint(len(images), (batch_size,))
            F.cross_entropy(classifier(images.pixels[rows].to(device)), images.labels[rows].to(device)).backward()
            optimizer.step()
            optimizer.zero_grad()
            rate.step()
    return classifier.eval()


@torch.no_grad()
def probabilities(classifier: Classifier, pixels: Pixels) -> Float[Tensor, "n k"]:
    device = next(classifier.parameters()).device
    return torch.cat([classifier(part.to(device)).softmax(-1).cpu() for part in pixels.split(500)])


@torch.no_grad()
def features(classifier: Classifier, pixels: Pixels) -> Features:
    device = next(classifier.parameters()).device
    return torch.cat([classifier.features(scaled(part.to(device))).cpu() for part in pixels.split(500)])


def accuracy(classifier: Classifier, images: Images) -> float:
    assert images.labels is not None
    return float(probabilities(classifier, images.pixels).argmax(-1).eq(images.labels).float().mean())


# --- of two sets of features


def frechet_distance(a: Features, b: Features) -> float:
    """Between the Gaussians that fit them: |mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) (arXiv:1706.08500, eq. 6). In float64."""
    a, b = a.double(), b.double()
    covariance_a, covariance_b = a.T.cov(), b.T.cov()
    root = torch.linalg.eigvals(covariance_a @ covariance_b).real.clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * root)


def precision_recall(real: Features, generated: Features, k: int = 3) -> tuple[float, float]:
    """The share of generated images among the real ones' k-nearest-neighbour balls, and the other way round (arXiv:1904.06991, eq. 1)."""
    apart = torch.cdist(generated, real)
    radius = {id(part): torch.cdist(part, part).kthvalue(k + 1, dim=1).values for part in (real, generated)}
    precision = (apart <= radius[id(real)]).any(1).float().mean()
    recall = (radius[id(generated)] >= apart.T).any(1).float().mean()
    return float(precision), float(recall)


# --- of the pixels


def nearest(pixels: Pixels, training: Pixels) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Root mean square distance (of 0 to 1) to the nearest training image, and which one that is."""
    flat, others = (part.flatten(1).float() / 255 for part in (pixels, training))
    found = torch.cat([torch.cdist(part, others).argmin(1) for part in flat.split(500)])
    return (flat - others[found]).square().mean(1).sqrt(), found  # anew, for cdist's distance to a copy is not quite 0


# --- of the model, on real images


@torch.no_grad()
def bound(
    model: ImageDiffusion, pixels: Pixels, label: Int[Tensor, " n"] | None, key: Int[Tensor, " n"], *, steps: int = 1000, draws: int = 16
) -> Float[Tensor, " n"]:
    """Nats an image: the variational bound on -log p(bytes | class), L_T + sum L_{t-1} + L_0 (DDPM eq. 5, 13).

    The reverse process has `steps` steps of equal length in log SNR, of which `draws` are drawn, stratified; an unbiased estimate. `key` numbers
    the images, whose randomness is a function of it. In float32.
    """
    pixels, key, label = _there(model, pixels, key, label)
    x0, denoise = scaled(pixels), model.denoiser(label)
    total = bound_but_last(denoise, x0, key, model.schedule(), steps, draws)
    return (total + _pixel_nats(model, x0, label, normal(key, x0.shape, stream=22))).sum((1, 2, 3)).cpu()


def ode_bound(
    model: ImageDiffusion, pixels: Pixels, label: Int[Tensor, " n"] | None, key: Int[Tensor, " n"], *, steps: int = 64
) -> Float[Tensor, " n"]:
    """Nats an image: the same bound with the probability-flow ODE as the model of x at the clean end, where the noise is the
    dequantization. Heun steps, one Rademacher probe."""
    pixels, key, label = _there(model, pixels, key, label)
    noisiest, cleanest = ends(model.schedule())
    x0, start = scaled(pixels), torch.full((len(pixels),), cleanest, device=pixels.device)
    eps = normal(key, x0.shape, stream=22)
    grid = torch.linspace(cleanest, noisiest, steps + 1, device=x0.device)
    smooth = partial(model.predict, label=label)  # without the edges of what pixels can be, where nothing can be differentiated
    log_p = ode_log_prob(smooth, diffuse(x0, start, eps), grid, lambda x: normal(key, x.shape, stream=23).sign())
    log_q = -0.5 * (eps**2 + math.log(2 * math.pi)) - alpha_sigma(start, x0).sigma.log()
    return (log_q - log_p + _pixel_nats(model, x0, label, eps)).sum((1, 2, 3)).cpu()


def bits_per_dimension(nats: Float[Tensor, " n"], pixels: Pixels) -> tuple[float, float]:
    """Mean and standard error."""
    bits = nats / (pixels[0].numel() * math.log(2))
    return float(bits.mean()), float(bits.std() / math.sqrt(len(bits)))


def _there(model: ImageDiffusion, pixels: Tensor, key: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    return pixels.to(model.device), key.to(model.device), None if label is None else label.to(model.device)


@torch.no_grad()
def _pixel_nats(model: ImageDiffusion, x0: Tensor, label: Tensor | None, eps: Tensor) -> Float[Tensor, "n c h w"]:
    """L_0: -log p(bytes | x at the clean end), a Gaussian around the estimate, of the noise's size there."""
    logsnr = torch.full((len(x0),), ends(model.schedule())[1], device=x0.device)
    guess = model.denoiser(label)(diffuse(x0, logsnr, eps), logsnr).x0
    alpha, sigma = alpha_sigma(logsnr, x0)
    return discretized_nats(x0, guess, sigma / alpha).float()
