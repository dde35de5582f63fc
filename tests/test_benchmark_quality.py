"""Minutes to quality: what is read off a ladder of finished runs, and the whole benchmark."""

import json
import math
from pathlib import Path

import pytest
from benchmarks import quality
from benchmarks.quality import Goals
from benchmarks.rungs import Goal, Rung, minutes_to
from study import Source

from textdiff import grammar

CONFIGS = {"grammar": "configs/text_demo.yaml", "text": "configs/text_e2e.yaml"}


def ladder(figure: str, values: dict[float, float]) -> list[Rung]:
    others = {"nats": 3.0, "nats_error": 0.1, "perplexity": 2.0, "grammatical": 0.5}
    sizes = {"steps": 1, "precision": "bf16", "parameters": 1, "vocabulary": 1}
    same = {"subject": "text", "model": "ours", **others, **sizes}
    return [Rung(**{**same, "minutes": t, figure: value}) for t, value in values.items()]


@pytest.mark.parametrize(
    ("figure", "values", "goal", "kind", "minutes"),
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
def test_a_goal_is_reached_where_the_ladder_first_crosses_it(figure, values, goal, kind, minutes):
    time = minutes_to(ladder(figure, values), Goal(figure, goal))
    assert (time.kind, time.minutes) == (kind, pytest.approx(minutes))


def test_all_models_are_trained_on_the_same_words():
    source = Source(train="text.txt", field="text")
    for subject in quality.subjects(source, CONFIGS, None, None):
        data, *others = [(config.data, config.tokenizer) for config in subject.models.values()]
        assert others == [data, data]


def test_the_longest_budget_decides_about_the_reference_model():
    (only,) = quality.subjects(Source(), CONFIGS, [4.0, 1.0], None)
    assert (only.name, only.minutes, only.reference_minutes) == ("grammar", [1.0, 4.0], 2.0)


@pytest.mark.parametrize(
    ("source", "options", "complaint"),
    [
        (Source(), {"minutes": [1.0, 0.0]}, "--minutes"),
        (Source(), {"reference_minutes": -1.0}, "--reference_minutes"),
        (Source(), {"samples": 9}, "--samples"),
        (Source(field="text"), {}, "--source.train"),
        (Source(), {"grammar": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(source, options, complaint, tmp_path):
    with pytest.raises(SystemExit) as left:
        quality.quality(source, Goals(), **options, out=str(tmp_path / "out"))
    assert complaint in str(left.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_whole_benchmark_prints_tables_and_keeps_what_is_done(tmp_path, capsys):
    text, config = tmp_path / "text.txt", tmp_path / "tiny.yaml"
    text.write_text("\n".join(grammar.corpus(2000, seed=0)) + "\n", encoding="utf-8")
    tiny = "model: {width: 16, heads: 1, depth: 1}\ntrain: {batch_size: 8, warmup: 1}\n"
    config.write_text("run: unused\ndata: {length: 20}\n" + tiny, encoding="utf-8")
    options = {"minutes": [0.005], "samples": 10, "steps": 2, "recipe_steps": 2}
    options |= {"grammar": str(config), "text": str(config), "out": str(tmp_path / "out")}
    quality.quality(Source(train=str(text)), Goals(), **options)
    printed = capsys.readouterr().out
    for part in ("minutes to", "diffusion-lm", "90% grammatical", "2.28 nats a token", "A100"):
        assert part in printed
    figures = json.loads((tmp_path / "out" / "quality.json").read_text(encoding="utf-8"))
    runs = [(rung["subject"], rung["model"]) for rung in figures["rungs"]]
    assert len(runs) == len(set(runs)) == 6
    assert (tmp_path / "out" / "quality.png").stat().st_size > 1000
    weights = sorted(Path(tmp_path, "out").rglob("model.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    quality.quality(Source(train=str(text)), Goals(), **options)
    assert capsys.readouterr().out == printed
    assert [path.stat().st_mtime_ns for path in weights] == before
