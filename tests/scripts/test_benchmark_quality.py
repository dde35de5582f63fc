"""Tests of the quality benchmark: minutes to a goal on a learning curve, and a complete run."""

import json
import math
from pathlib import Path

import pytest
from ablate import Source
from benchmarks import quality
from benchmarks.curves import Goal, RunResult, minutes_to
from benchmarks.quality import Goals

from textdiff.text import grammar

CONFIGS = {"grammar": "configs/text_demo.yaml", "text": "configs/text_e2e.yaml"}


def curve(metric: str, values: dict[float, float]) -> list[RunResult]:
    metrics = {"nats": 3.0, "nats_error": 0.1, "perplexity": 2.0, "grammatical": 0.5}
    sizes = {"steps": 1, "precision": "bf16", "parameters": 1, "vocabulary": 1}
    same = {"domain": "text", "model": "ours", **metrics, **sizes}
    return [RunResult(**{**same, "minutes": t, metric: value}) for t, value in values.items()]


@pytest.mark.parametrize(
    ("metric", "values", "goal", "kind", "minutes"),
    [
        ("nats", {1: 3.0, 4: 2.0}, 2.5, "about", 2.0),
        ("nats", {4: 2.0, 1: 3.0}, 2.0, "about", 4.0),
        ("perplexity", {1: 3.0, 4: 2.0}, 3.5, "<=", 1.0),
        ("perplexity", {1: 3.0, 4: 2.0}, 1.5, ">", 4.0),
        ("grammatical", {1: 0.5, 4: 1.0}, 0.75, "about", 2.0),
        ("grammatical", {1: 0.5, 4: 0.6}, 0.99, ">", 4.0),
        ("nats", {1: 3.0, 2: 2.0, 4: 2.6}, 2.5, "about", math.sqrt(2)),
        ("nats", {2: 2.0}, 2.5, "<=", 2.0),
    ],
)
def test_first_crossing_reaches_the_goal(metric, values, goal, kind, minutes):
    time = minutes_to(curve(metric, values), Goal(metric, goal))
    assert (time.kind, time.minutes) == (kind, pytest.approx(minutes))


def test_all_models_train_on_the_same_words():
    source = Source(train="text.txt", field="text")
    for experiment in quality.experiments(source, CONFIGS, None, None):
        models = experiment.models.values()
        data, *others = [(config.data, config.tokenizer) for config in models]
        assert others == [data, data]


def test_reference_model_trains_half_the_longest_budget():
    (only,) = quality.experiments(Source(), CONFIGS, [4.0, 1.0], None)
    assert (only.name, only.minutes, only.reference_minutes) == ("grammar", [1.0, 4.0], 2.0)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (Source(), {"minutes": [1.0, 0.0]}, "--minutes"),
        (Source(), {"reference_minutes": -1.0}, "--reference_minutes"),
        (Source(), {"samples": 9}, "--samples"),
        (Source(field="text"), {}, "--source.train"),
        (Source(), {"grammar": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_mistakes_end_the_program_before_training(source, options, message, tmp_path):
    with pytest.raises(SystemExit) as error:
        quality.quality(source, Goals(), **options, out=str(tmp_path / "out"))
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_benchmark_prints_tables_and_keeps_runs(tmp_path, capsys):
    text, config = tmp_path / "text.txt", tmp_path / "tiny.yaml"
    text.write_text("\n".join(grammar.corpus(2000, seed=0)) + "\n", encoding="utf-8")
    tiny = "model: {width: 16, heads: 1, depth: 1}\ntrain: {batch_size: 8, warmup: 1}\n"
    config.write_text("run: unused\ndata: {length: 20}\n" + tiny, encoding="utf-8")
    options = {"minutes": [0.005], "samples": 10, "steps": 2, "recipe_steps": 2}
    options |= {"grammar": str(config), "text": str(config), "out": str(tmp_path / "out")}
    quality.quality(Source(train=str(text)), Goals(), **options)
    printed = capsys.readouterr().out
    for part in ("minutes to", "diffusion-lm", "90% grammatical", "2.28 nats per token", "A100"):
        assert part in printed
    results = json.loads((tmp_path / "out" / "quality.json").read_text(encoding="utf-8"))
    runs = [(run["domain"], run["model"]) for run in results["runs"]]
    assert len(runs) == len(set(runs)) == 6
    assert (tmp_path / "out" / "quality.png").stat().st_size > 1000
    weights = sorted(Path(tmp_path, "out").rglob("model.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    quality.quality(Source(train=str(text)), Goals(), **options)
    assert capsys.readouterr().out == printed
    assert [path.stat().st_mtime_ns for path in weights] == before
