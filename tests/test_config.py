"""Options are complete, documented, and name what exists."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml

from textdiff import config
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.diffusion.schedule import SCHEDULES
from textdiff.lm import DiffusionLMConfig
from textdiff.vocab import TOKENIZERS

SECTIONS = (config.Data, config.Vocabulary, config.Model, config.Train, config.Sampling, config.Evaluation)


def test_choices_are_the_registries() -> None:
    assert set(get_args(get_type_hints(config.Sampling)["sampler"])) == set(SAMPLERS)
    assert set(get_args(get_type_hints(config.Model)["schedule"])) == {"adaptive", *SCHEDULES}
    assert set(get_args(get_type_hints(config.Vocabulary)["kind"])) == set(TOKENIZERS)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_option_is_explained(section: type) -> None:
    assert is_dataclass(section)
    for field in fields(section):
        assert f"\n        {field.name}: " in (section.__doc__ or ""), field.name


def test_the_saved_model_has_the_same_defaults() -> None:
    saved = DiffusionLMConfig()
    for field in (field for field in fields(config.Model) if field.name not in ("family", "embedding_init")):  # which only training needs
        default = getattr(config.Model(), field.name)
        assert getattr(saved, field.name) == (list(default) if isinstance(default, tuple) else default), field.name


CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize("path", sorted([*CONFIGS.glob("text_*.yaml"), *CONFIGS.glob("ablations/*.yaml")]), ids=lambda path: path.stem)
def test_every_configuration_names_only_options_that_exist(path: Path) -> None:
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    sections = {"data": config.Data, "tokenizer": config.Vocabulary, "model": config.Model, "train": config.Train}
    for name, section in sections.items():
        section(**{key: tuple(value) if isinstance(value, list) else value for key, value in written.pop(name, {}).items()})
    assert set(written) <= {"run"}


@pytest.mark.parametrize(
    ("section", "options"),
    [
        (config.Data, {"length": 1}),
        (config.Data, {"valid_share": 1.0}),
        (config.Vocabulary, {"size": 3}),
        (config.Model, {"width": 32}),
        (config.Model, {"logsnr_min": 7.0}),
        (config.Model, {"reveal": 1.5}),
        (config.Model, {"output_prior": (0.6, 0.25)}),
        (config.Train, {"lr": 0.0}),
        (config.Train, {"ema": 1.0}),
        (config.Train, {"minutes": 0.0}),
        (config.Evaluation, {"steps": [32, 0]}),
        (config.Sampling, {"temperature": 0.0}),
        (config.Sampling, {"guidance": -0.5}),
        (config.Evaluation, {"guidance": -0.5}),
        (config.Model, {"sampling_guidance": -0.5}),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(section: type, options: dict[str, object]) -> None:
    with pytest.raises(config.InputError, match=next(iter(options))):
        section(**options)
