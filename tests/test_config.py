"""Laws of options: they are complete, documented and checked, and their choices exist."""

import tomllib
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import pytest

import image.config
from textdiff.config import SamplingConfig, TrainConfig, UserError, check_choices
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.diffusion.schedules import SCHEDULES
from textdiff.evaluation.config import EvaluationConfig
from textdiff.options import config_file, load_config
from textdiff.text.config import (
    DataConfig,
    ModelConfig,
    TextConfig,
    TokenizerConfig,
)
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.tokenizer import TOKENIZERS

SECTIONS = (
    DataConfig,
    TokenizerConfig,
    ModelConfig,
    TrainConfig,
    SamplingConfig,
    DecodingConfig,
    EvaluationConfig,
    image.config.DataConfig,
    image.config.ModelConfig,
)
ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


def test_package_contains_configurations_and_every_module():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setup = project["tool"]["setuptools"]
    folders = {
        path.parent for name in ("textdiff", "image") for path in (ROOT / name).rglob("*.py")
    }
    modules = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert {*setup["packages"]} == modules | {"textdiff.configs"}
    assert setup["package-dir"]["textdiff.configs"] == CONFIGS.name


def test_configurations_have_names(tmp_path, monkeypatch):
    assert config_file("e2e") == str(CONFIGS / "text_e2e.yaml")
    files = [path.stem.split("_", 1) for path in CONFIGS.glob("*.yaml")]
    assert {config_file(name, kind) for kind, name in files} == {*map(str, CONFIGS.glob("*.yaml"))}
    with pytest.raises(UserError, match=r"a file or one of cifar10, digits, .*, got e2e"):
        config_file("e2e", "image")
    with pytest.raises(
        UserError, match=r"--config must be a file or one of demo, e2e, .*, got e3e"
    ):
        config_file("e3e")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e2e").touch()
    assert config_file("e2e") == "e2e"  # one's own file


def choices(section: type, option: str) -> set[str]:
    return set(get_args(get_type_hints(section)[option]))


@dataclass
class Choice:
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    steps: int = 3


def test_wrong_choices_name_the_others() -> None:
    check_choices(Choice("ddim"))
    with pytest.raises(UserError, match="--sampler must be one of ddpm, ddim, got 'dpm'"):
        check_choices(Choice("dpm"))  # type: ignore[arg-type]


def test_choices_are_the_registries() -> None:
    assert choices(SamplingConfig, "sampler") == set(SAMPLERS)
    assert choices(ModelConfig, "schedule") == {"adaptive", *SCHEDULES}
    assert choices(image.config.ModelConfig, "schedule") == set(SCHEDULES)
    assert choices(TokenizerConfig, "kind") == set(TOKENIZERS)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_option_is_documented(section: type) -> None:
    """Those that it inherits are documented where they are defined."""
    assert is_dataclass(section)
    for field in fields(section):
        kind = next(kind for kind in section.__mro__ if field.name in kind.__annotations__)
        assert f"\n        {field.name}: " in (kind.__doc__ or ""), field.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_configuration_files_name_existing_options(path: Path) -> None:
    kind = image.config.ImageConfig if path.stem.startswith("image") else TextConfig
    assert isinstance(load_config(path, kind), kind)


@pytest.mark.parametrize(
    ("section", "options"),
    [
        (DataConfig, {"length": 1}),
        (DataConfig, {"valid_share": 1.0}),
        (TokenizerConfig, {"size": 3}),
        (ModelConfig, {"width": 32}),
        (ModelConfig, {"logsnr_min": 7.0}),
        (ModelConfig, {"infill_prob": 1.5}),
        (ModelConfig, {"prior_warmup": (0.6, 0.25)}),
        (TrainConfig, {"lr": 0.0}),
        (TrainConfig, {"ema": 1.0}),
        (TrainConfig, {"minutes": 0.0}),
        (TrainConfig, {"trackers": "paper"}),
        (EvaluationConfig, {"steps": [32, 0]}),
        (SamplingConfig, {"steps": 0}),
        (DecodingConfig, {"temperature": 0.0}),
        (DecodingConfig, {"guidance_scale": -0.5}),
        (EvaluationConfig, {"guidance_scale": -0.5}),
        (ModelConfig, {"sampling_guidance_scale": -0.5}),
    ],
)
def test_value_out_of_range_is_refused(section: type, options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        section(**options)
