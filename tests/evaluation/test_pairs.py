"""Evaluation of models of pairs: references, slots, and the autoregressive baseline."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from textdiff import TextDiffusion
from textdiff.cli.main import main
from textdiff.config import UserError
from textdiff.evaluation.config import EvaluationConfig
from textdiff.evaluation.evaluate import evaluate
from textdiff.evaluation.pair_evaluator import PairEvaluator, TargetRow, held_out_pairs
from textdiff.evaluation.pairs import GREEDY, generated_row
from textdiff.evaluation.scores import Scores, scores_of
from textdiff.text.hub import load_model
from textdiff.text.lengths import length_nats
from textdiff.text.sequence_likelihood import padded
from textdiff.text.target_lengths import TargetLengths
from textdiff.text.task import Selection

SIZE = "--model.width 32 --model.heads 2 --model.depth 1 --data.length 40 --train.batch_size 16"
TRAINING = "--train.precision no --train.steps 4 --data.source mr --data.target ref"
QUICK = {"n": 10, "scored": 6, "ode": 1, "minutes": 0.02}
ROWS = ["references", "model, 1 steps", "model, 2 steps", "ar", "ar, greedy"]
NAMES = ("Aromi", "Cocum", "Zizzi", "Strada", "Cotto")
FOODS = ("Italian", "French", "Chinese", "English")


def rows_of(names: tuple[str, ...]) -> list[dict[str, str]]:
    """Three descriptions of each meaning; the last one leaves out the area."""
    return [
        {"mr": f"name : {name} | food : {food} | area : riverside", "ref": ref}
        for name in names
        for food in FOODS
        for ref in (
            f"{name} serves {food} food by the river.",
            f"In the riverside area there is {name}, a {food} place.",
            f"{name} is {food}.",
        )
    ]


class Evaluated(NamedTuple):
    """A tiny run, and its evaluation."""

    run: str
    folder: Path
    lines: list[str]
    report: dict


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    folder = tmp_path_factory.mktemp("pairs")
    for name, rows in (("train", rows_of(NAMES[:2])), ("valid", rows_of(NAMES[2:]))):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    data = f"--data.train {folder}/train.jsonl --data.valid {folder}/valid.jsonl"
    run, out = str(folder / "run"), folder / "evaluation"
    options = f"--steps [1,2] --mbr 2 --baselines [ar] --out {out}".split()
    options += [part for name, value in QUICK.items() for part in (f"--{name}", str(value))]
    with redirect_stdout(io.StringIO()) as printed:
        main(["train", "--run", run, *f"{data} {SIZE} {TRAINING}".split()])
        main(["evaluate", run, *options])
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return Evaluated(run, out, printed.getvalue().splitlines(), report)


@pytest.fixture(scope="module")
def evaluator(evaluated: Evaluated) -> PairEvaluator:
    """An evaluator of two sources, with two references and one."""
    _, tokenizer = load_model(evaluated.run)
    meanings = [f"name : {name} | food : Italian" for name in NAMES[:2]]
    pairs = {
        meanings[0]: ["Aromi serves Italian food.", "For Italian food try Aromi"],
        meanings[1]: ["Cocum is an Italian place by the river."],
    }
    training = [f"{source} [SEP] {pairs[source][0]}" for source in pairs]
    scored = [tuple(tokenizer.encode(text).ids) for text in training]
    return PairEvaluator(pairs, scored, training, tokenizer)


def row(evaluator: PairEvaluator, *texts: str, **options: object) -> TargetRow:
    return TargetRow("row", evaluator.encode(texts), texts=[*texts], **options)


def test_rows_are_references_model_and_baseline(evaluated: Evaluated) -> None:
    table = evaluated.report["table"]
    assert list(table) == ROWS
    assert len({tuple(each) for each in table.values()}) == 1
    assert {each["sentences"] for each in table.values()} == {10}
    assert all(name in evaluated.lines[-len(table["ar"]) - 3] for name in ROWS)
    assert evaluated.lines[-2].startswith("bleu: nrefs:3|bs:1000|")
    assert evaluated.lines[-1].startswith("chrf: nrefs:3|case:lc")
    assert table["ar"]["nats_per_token"] == table["ar, greedy"]["nats_per_token"]
    assert [table[name]["evaluations"] for name in ROWS[1:3]] == [2, 4]


@pytest.mark.parametrize(("candidates", "chosen", "sizes"), [(1, 0, [3, 5]), (3, 2, [7, 9])])
def test_lengths_follow_sources_and_candidates(
    evaluated: Evaluated,
    evaluator: PairEvaluator,
    monkeypatch: pytest.MonkeyPatch,
    candidates: int,
    chosen: int,
    sizes: list[int],
) -> None:
    """Lengths of the first candidates, and of the third ones, of two sources of the same length."""
    model, tokenizer = load_model(evaluated.run)
    cocum, frequencies = tokenizer.token_to_id("cocum"), torch.eye(model.config.length + 1)

    def predicted(_: TargetLengths, ids: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """3 or 7 tokens, equally often; two more for Cocum."""
        median = 3 + 2 * (ids == cocum).any(1)
        return frequencies[median] + frequencies[median + 4]

    select = Selection(candidates, lambda group: [group[chosen]])
    monkeypatch.setattr(TargetLengths, "forward", predicted)
    monkeypatch.setattr("textdiff.evaluation.pairs.most_like_others", lambda _: select)
    options, scores = EvaluationConfig(mbr=candidates), Scores(np.zeros(1))
    found = generated_row("model", model, evaluator, options, 1, scores)
    assert [*map(len, found.sentences)] == sizes


def test_references_have_their_own_errors(evaluated: Evaluated) -> None:
    """A third of the descriptions leaves out one slot of three."""
    found = evaluated.report["table"]["references"]
    assert found["slot_error_rate"] == pytest.approx((1 - found["no_slot_error"]) / 3)
    assert found["slot_error_rate"] == found["missing_slots"] > 0
    assert 0 < found["bleu"] < 100


def test_samples_show_their_sources(evaluated: Evaluated) -> None:
    lines = (evaluated.folder / "samples.txt").read_text(encoding="utf-8").splitlines()
    assert [line[2:] for line in lines if line.startswith("# ")] == ROWS
    assert sum(line.startswith("name : ") for line in lines) == 10 * len(ROWS)
    assert (evaluated.folder / "figures.png").stat().st_size > 1000


def test_autoregressive_model_of_pairs_is_evaluated(evaluated: Evaluated, tmp_path: Path) -> None:
    (folder,) = evaluated.folder.glob("ar-*")
    report = evaluate(str(folder), EvaluationConfig(**QUICK, out=str(tmp_path)))
    assert list(report["table"]) == ["references", "model"]
    assert report["table"]["model"]["nats_draw_error"] == 0


def test_greedy_targets_do_not_depend_on_seed(evaluated: Evaluated) -> None:
    (folder,) = evaluated.folder.glob("ar-*")
    pipe, sources = TextDiffusion.from_pretrained(str(folder)), ["name : Aromi", "food : French"]
    pipe.model.gpt.transformer.ln_f.weight.data *= 100  # no tokens of nearly equal probability
    for temperature, same in ((GREEDY, True), (100.0, False)):
        first, second = (
            pipe.generate(sources, temperature=temperature, seed=seed).texts for seed in (0, 1)
        )
        assert (first == second) == same


def test_any_reference_counts(evaluator: PairEvaluator) -> None:
    texts = "for italian food , try aromi", "COCUM is an Italian place by the river ."
    found = evaluator.metrics_of(row(evaluator, *texts))
    assert 70 < found["bleu"] < 100  # without the comma it would be 100
    assert found["exact_length"] == 0.5
    assert found["invented_slots"] == 0.25
    assert found["no_slot_error"] == 0.5
    copies = [references[-1] for references in evaluator.pairs.values()]
    assert evaluator.metrics_of(row(evaluator, *copies))["bleu"] == pytest.approx(100)


def test_single_references_are_not_compared(evaluator: PairEvaluator) -> None:
    texts = "aromi serves french food .", "cocum"
    other = row(evaluator, *texts, references=[[], []])
    assert evaluator.metrics_of(other)["bleu"] is None
    other.references = [["aromi serves french food."], []]
    assert evaluator.metrics_of(other)["bleu"] == pytest.approx(100)


def test_references_are_grouped_by_source(evaluated: Evaluated) -> None:
    model, tokenizer = load_model(evaluated.run)
    long = " ".join(["pub"] * 39) + " [SEP] x"
    texts = ["a [SEP] b c", "d [SEP] e", "a [SEP] f", long]
    assert held_out_pairs(texts, 2, model, tokenizer) == {"a": ["b c", "f"], "d": ["e"]}
    with pytest.raises(UserError, match="held-out sources must be of at most 38 tokens"):
        held_out_pairs([long], 2, model, tokenizer)


def test_sources_of_training_text_are_reported(
    evaluator: PairEvaluator, caplog: pytest.LogCaptureFixture
) -> None:
    training = [f"{source} [SEP] cocum" for source in [*evaluator.pairs][:1]] + ["a [SEP] b"]
    PairEvaluator(evaluator.pairs, evaluator.scored, training, evaluator.tokenizer)
    assert "1 of 2 sources are also in the training text" in caplog.text


def test_positions_begin_with_the_target(evaluated: Evaluated, evaluator: PairEvaluator) -> None:
    model, _ = load_model(evaluated.run)
    scores = scores_of("model", model, evaluator.scored, EvaluationConfig(ode=0))
    sizes = (~np.isnan(scores.words)).sum(1)
    assert sizes.tolist() == [len(evaluator.target(pair)) for pair in evaluator.scored]
    assert not np.isnan(scores.words[:, 0]).any()
    of_length = length_nats(model, *padded([*map(list, evaluator.scored)])).numpy()
    assert scores.nats == pytest.approx(np.nansum(scores.words, 1) + of_length, abs=1e-3)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"mauve": True}, "--mauve needs a model without data.source"),
        ({"reference_lm": "gpt2"}, "--reference_lm needs a model without data.source"),
        ({"baselines": ["ar", "bigram"]}, r"--baselines must be \[ar\] for a model of pairs"),
    ],
)
def test_options_of_other_models_are_refused(
    evaluated: Evaluated, option: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(evaluated.run, EvaluationConfig(**QUICK, **option))


def test_candidates_need_a_model_of_pairs(run: str) -> None:
    with pytest.raises(UserError, match=r"--mbr must be left out without data\.source"):
        evaluate(run, EvaluationConfig(mbr=2))
