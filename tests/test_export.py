"""Laws of exported graphs: onnxruntime gives what torch gives, for any number and length."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch.testing import assert_close

from image.model import ImageDiffusionConfig, ImageDiffusionModel
from textdiff.config import UserError
from textdiff.diffusion.gaussian import diffuse
from textdiff.export import Graph, export_onnx
from textdiff.text.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.text.export import OUTPUTS, text_graph
from textdiff.text.transformer import NoisyText

pytestmark = pytest.mark.slow  # the example of docs/api.md exports a model in every run
ROOT = Path(__file__).parents[1]
TEXTS = {
    "markov": {},
    "sentences": {"sentence_loss": True, "stagger_prob": 0.0},
    "unigram": {"prior": "unigram"},
    "eps": {"objective": "eps", "schedule": "cosine"},
}
IMAGES = {"levels": {"stagger_prob": 0.25}, "plain": {"infill_prob": 0.0, "classes": []}}
EXPORT = """
import sys
from pathlib import Path
from transformers import AutoModel
import textdiff, image
from image.export import image_graph
from textdiff.export import export_onnx
from textdiff.text.export import text_graph

for name in sys.argv[1:]:
    model = AutoModel.from_pretrained(name).eval()
    graph = text_graph if model.config.model_type == "textdiff" else image_graph
    print(export_onnx(graph(model), Path(name) / "model.onnx"))
"""


@pytest.fixture(scope="module")
def models(new_model) -> dict[str, torch.nn.Module]:
    """Models whose weights are random everywhere."""
    models = {name: new_model(**options).eval() for name, options in TEXTS.items()}
    for model in models.values():
        model.prior_weight.fill_(0.7)
    for name, options in IMAGES.items():
        small = {"width": 8, "channel_multipliers": [1, 2], "res_blocks": 1, "height": 7}
        config = ImageDiffusionConfig(**{**small, "classes": ["a", "b"], **options})
        with torch.random.fork_rng():
            torch.manual_seed(0)
            models[name] = ImageDiffusionModel(config).eval()
            for weight in models[name].parameters():
                weight.data += 0.1 * torch.randn(weight.shape)
    return models


@pytest.fixture(scope="module")
def sessions(models, tmp_path_factory) -> dict[str, onnxruntime.InferenceSession]:
    """Exported models, by a process in which types are not checked: this would fix the shapes."""
    folder = tmp_path_factory.mktemp("graphs")
    for name, model in models.items():
        model.save_pretrained(folder / name)
    command = [sys.executable, "-c", EXPORT, *(str(folder / name) for name in models)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("differs from torch by") == len(models)
    return {name: onnxruntime.InferenceSession(folder / name / "model.onnx") for name in models}


@pytest.mark.parametrize(("n", "length"), [(1, 1), (2, 7), (5, 20)])
@pytest.mark.parametrize("name", TEXTS)
def test_text_graph_is_one_prediction(models, sessions, name: str, n: int, length: int) -> None:
    model, rng = models[name], torch.Generator().manual_seed(n)
    words = torch.randint(model.config.vocab_size, (n, length), generator=rng)
    logsnr = torch.linspace(-8, 5, n * length).view(n, length)
    mask = torch.arange(length) < torch.arange(length, length - n, -1).unsqueeze(1).clamp(min=1)
    x0 = model.words.embeddings[words].detach()
    x_t = diffuse(x0, torch.randn(x0.shape, generator=rng), logsnr)
    self_cond = torch.randn(x0.shape, generator=rng)
    with torch.no_grad():
        prediction, logits = model.predict(NoisyText(x_t, logsnr, mask, self_cond))
    wanted = {**prediction._asdict(), "probabilities": logits.softmax(-1)}
    inputs = {"x_t": x_t, "logsnr": logsnr, "mask": mask, "self_cond": self_cond}
    found = sessions[name].run(None, {key: value.numpy() for key, value in inputs.items()})
    for key, value in zip(OUTPUTS[model.config.objective], found, strict=True):
        assert_close(torch.from_numpy(value), wanted[key], atol=1e-4, rtol=0)


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", IMAGES)
def test_image_graph_is_the_network(models, sessions, name: str, n: int) -> None:
    model, rng = models[name], torch.Generator().manual_seed(n)
    inputs = {"x_t": torch.randn(n, *model.config.shape, generator=rng)}
    inputs["logsnr"] = torch.linspace(-8, 8, n)
    if model.config.has_own_levels:
        inputs["logsnr"] = 8 * torch.randn(n, 1, *model.config.shape[1:], generator=rng)
    if model.config.classes:
        inputs["label"] = torch.arange(n) % 3
    with torch.no_grad():
        wanted = model.unet(*inputs.values())
    (found,) = sessions[name].run(None, {key: value.numpy() for key, value in inputs.items()})
    assert wanted.abs().max() > 0.1
    assert_close(torch.from_numpy(found), wanted, atol=1e-4, rtol=0)


def test_autoregressive_model_is_refused() -> None:
    shape = AutoregressiveConfig(vocab_size=20, length=12, width=16, heads=2, depth=1)
    with pytest.raises(UserError, match="no denoiser: export a diffusion model"):
        text_graph(Autoregressive(shape))


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"this needs onnx: pip install 'textdiff\[onnx\]'"):
        export_onnx(graph_of(torch.nn.Identity()), tmp_path / "model.onnx")


class Changed(torch.nn.Module):
    """A module whose graph is not what it computes."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x + torch.compiler.is_exporting(),)


def graph_of(module: torch.nn.Module) -> Graph:
    def examples(size: int) -> tuple[torch.Tensor]:
        return (torch.zeros(size, 2),)

    return Graph(module, ("x",), ("y",), ({0: "batch"},), examples, {})


def test_graph_that_differs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.onnx differs from torch by 1\.0e\+00"):
        export_onnx(graph_of(Changed()), tmp_path / "model.onnx")


def test_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the graph"):
        export_onnx(graph_of(Changed()), tmp_path / "file" / "model.onnx")
