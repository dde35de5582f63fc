"""The whole evaluation of a tiny run."""

import io
import json
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest
from tokenizers import Tokenizer

from textdiff.cli.main import main
from textdiff.config import UserError
from textdiff.evaluation.config import EvaluationConfig
from textdiff.evaluation.evaluate import evaluate, training_seconds
from textdiff.evaluation.evaluator import Evaluator, Row
from textdiff.evaluation.reference_lm import ReferenceLM
from textdiff.evaluation.report import report_lines
from textdiff.text.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.text.dataset import Corpus

QUICK = {"n": 20, "scored": 4, "ode": 2, "minutes": 0.005, "reference_minutes": 0.005}
SHORT = {**QUICK, "ode": 0, "steps": 1, "baselines": []}
ROWS = [
    *("held-out text", "training text", "model, 1 steps", "model, 2 steps"),
    *("ar", "prior", "bigram", "shuffled"),
]


def read_report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def change_config(run: str, copy: Path, *changes: tuple[str, str]) -> str:
    """Copies a run and replaces text in its configuration."""
    shutil.copytree(run, copy, dirs_exist_ok=True)
    text = (copy / "config.yaml").read_text(encoding="utf-8")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (copy / "config.yaml").write_text(text, encoding="utf-8")
    return str(copy)


class Evaluated(NamedTuple):
    """An evaluation with several rows."""

    options: EvaluationConfig
    folder: Path
    lines: list[str]
    report: dict

    @property
    def weights(self) -> Path:
        """Weights of the autoregressive baseline."""
        (path,) = self.folder.glob("ar-*/model/model.safetensors")
        return path


@pytest.fixture(scope="module")
def evaluated(run: str, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    folder, baselines = tmp_path_factory.mktemp("evaluation"), [*ROWS[-4:]]
    settings = {"steps": [1, 2], "guidance_scale": 3.0, "mauve": True, "baselines": baselines}
    options = EvaluationConfig(**QUICK, **settings, out=str(folder))
    given = {name: value for name, value in vars(options).items() if value is not None}
    pairs = [(f"--{name}", json.dumps(value).strip('"')) for name, value in given.items()]
    with redirect_stdout(io.StringIO()) as printed:
        main(["evaluate", run, *chain(*pairs)])
    return Evaluated(options, folder, printed.getvalue().splitlines(), read_report(folder))


def test_all_rows_are_in_one_table(evaluated: Evaluated) -> None:
    table = evaluated.report["table"]
    assert list(table) == ROWS
    assert all(name in evaluated.lines[0] for name in ROWS)
    assert len({tuple(row) for row in table.values()}) == 1
    nats = [table[row]["nats_per_token"] for row in ("model, 1 steps", "bigram")]
    assert nats[0] == pytest.approx(nats[1], abs=0.4)  # in four steps, the prior is all it has


def test_report_has_resolved_options(evaluated: Evaluated) -> None:
    options = evaluated.report["options"]
    assert (options["guidance_scale"], options["temperature"]) == (3.0, 1.0)


def test_samples_and_figures_are_written(evaluated: Evaluated) -> None:
    assert (evaluated.folder / "figures.png").stat().st_size > 1000
    lines = (evaluated.folder / "samples.txt").read_text(encoding="utf-8").splitlines()
    assert [line[2:] for line in lines if line.startswith("# ")] == ROWS


def test_nats_by_position_are_in_report(evaluated: Evaluated) -> None:
    """Of the models whose words have nats, once for all numbers of steps."""
    positions = evaluated.report["positions"]
    assert list(positions) == ["model", "ar"]
    assert positions["model"]["sentences"] == positions["ar"]["sentences"]
    assert all(len(set(map(len, found.values()))) == 1 for found in positions.values())


def test_report_names_what_auto_stood_for(evaluated: Evaluated) -> None:
    options = evaluated.report["options"]
    assert (options["x0"], options["order"]) == ("joint", "left-to-right")


def test_bound_is_that_of_the_order(run: str, tmp_path: Path) -> None:
    """Baselines keep their own order."""
    names = {"order": "left-to-right", "out": str(tmp_path), "baselines": ["ar"]}
    reports = [
        evaluate(run, EvaluationConfig(**{**SHORT, **names, "window": window})) for window in (1, 3)
    ]
    options = [report["options"] for report in reports]
    assert [(each["order"], each["window"]) for each in options] == [
        *(("left-to-right", 1), ("left-to-right", 3))
    ]
    assert options[0]["draws"] == 64
    one, three = (report["table"]["model"] for report in reports)
    assert one["nats_per_token"] != three["nats_per_token"]
    assert 0 < one["nats_draw_error"] < three["nats_draw_error"]
    assert reports[0]["table"]["ar"]["nats_draw_error"] == 0


def test_trained_baselines_are_used_again(run: str, evaluated: Evaluated) -> None:
    """The second evaluation takes the trained reference model by the name of its folder."""
    (reference_lm,) = evaluated.folder.glob("reference-*")
    before = evaluated.weights.stat().st_mtime_ns
    options = replace(evaluated.options, reference_lm=str(reference_lm))
    again, lines = report_lines(evaluate(run, options)), evaluated.lines
    assert [x for x in again if "seconds" not in x] == [x for x in lines if "seconds" not in x]
    assert evaluated.weights.stat().st_mtime_ns == before


def test_options_a_model_lacks_are_refused(run: str, evaluated: Evaluated, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an autoregressive model"):
        evaluate(run, EvaluationConfig(**QUICK, reference_lm=run))
    guided = EvaluationConfig(**QUICK, guidance_scale=3.0, out=str(tmp_path / "unused"))
    with pytest.raises(UserError, match="--guidance_scale needs a diffusion model"):
        evaluate(str(evaluated.weights.parent.parent), guided)
    assert not (tmp_path / "unused").exists()


def test_baselines_of_another_model_are_refused(run: str, tmp_path: Path) -> None:
    options = EvaluationConfig(**SHORT, out=str(tmp_path))
    evaluate(run, options)
    for change in (("length: 24", "length: 20"), ("optimizer: muon", "optimizer: adamw")):
        other = change_config(run, tmp_path / "other", change)
        with pytest.raises(UserError, match=r"reference-0s was trained for another model.* --out"):
            evaluate(other, options)


def test_options_without_effect_on_weights_keep_baselines(run: str, tmp_path: Path) -> None:
    options = EvaluationConfig(**SHORT, out=str(tmp_path))
    evaluate(run, options)
    (weights,) = tmp_path.glob("reference-*/model/model.safetensors")
    before = weights.stat().st_mtime_ns
    changes = ("log_every: 20", "log_every: 7"), ("steps: 4", "steps: 5")
    evaluate(change_config(run, tmp_path / "other", *changes), options)
    assert weights.stat().st_mtime_ns == before


def test_interruption_keeps_finished_rows(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("textdiff.evaluation.evaluate.shuffled", interrupted)
    options = {**SHORT, "baselines": ["bigram", "shuffled"], "out": str(tmp_path)}
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, EvaluationConfig(**options))
    assert list(read_report(tmp_path)["table"]) == [
        *("held-out text", "training text", "model", "bigram")
    ]


def test_reference_model_worse_than_bigrams_is_reported(
    run: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for minutes in (1e-6, 0.02):
        caplog.clear()
        options = {**SHORT, "n": 10, "scored": 10, "reference_minutes": minutes}
        report = evaluate(run, EvaluationConfig(**options, out=str(tmp_path / str(minutes))))
        quality = report["reference_lm"]
        worse = quality["held_out_perplexity"] > quality["bigram_perplexity"]
        assert ("worse than bigrams" in caplog.text) == worse
        assert worse or minutes == 0.02


def test_incomplete_log_line_is_not_counted(tmp_path: Path) -> None:
    lines = ['{"step": 20, "seconds": 3.0}', '{"step": 40, "seconds": 5.0}', '{"step": 60, "sec']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert training_seconds(tmp_path / "metrics.jsonl") == 5


def test_grammar_checks_every_row(tokenizer: Tokenizer, corpus: Corpus) -> None:
    size = {"width": 16, "depth": 1, "heads": 1, "length": int(corpus.sizes.max())}
    config = AutoregressiveConfig(vocab_size=tokenizer.get_vocab_size(), **size)
    reference_lm = ReferenceLM(Autoregressive(config).eval())
    sentences = [tuple(corpus[i].tolist()) for i in range(60)]
    evaluator = Evaluator(
        sentences[:20], sentences[20:40], sentences, reference_lm, tokenizer, grammar=True
    )
    assert evaluator.metrics_of(Row("right", sentences[40:]))["grammatical"] == 1
    half_reversed = [*sentences[40:50], *(sentence[::-1] for sentence in sentences[50:])]
    assert evaluator.metrics_of(Row("half reversed", half_reversed))["grammatical"] == 0.5
