"""The whole evaluation, on a tiny run."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from textdiff import grammar
from textdiff.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.cli import main
from textdiff.config import Evaluation, InputError
from textdiff.data import Corpus
from textdiff.evaluate import evaluate, trained_seconds
from textdiff.generate import load
from textdiff.report import Judge, Row, show
from textdiff.teacher import ForeignTeacher, Teacher, perplexity
from textdiff.vocab import UNK

QUICK = {"n": 20, "scored": 4, "ode": 2, "minutes": 0.02, "teacher_minutes": 0.02}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs")
    text = folder / "text.txt"
    text.write_text("\n".join(grammar.corpus(400, seed=0)) + "\n", encoding="utf-8")
    tiny = [
        "--model.width",
        "32",
        "--model.heads",
        "2",
        "--model.depth",
        "1",
        "--data.length",
        "24",
        "--train.batch_size",
        "16",
        "--train.precision",
        "no",
    ]
    main(["train", "--run", str(folder / "tiny"), "--data.train", str(text), *tiny, "--train.steps", "4"])
    return str(folder / "tiny")


def test_all_rows_are_in_one_table_and_what_was_trained_is_kept(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Evaluation(**QUICK, steps=[1, 2], guidance=3.0, mauve=True, baselines=["ar", "bigram", "shuffled"], out=str(tmp_path))
    typed = [word for name, value in vars(options).items() if value is not None for word in (f"--{name}", json.dumps(value).strip('"'))]
    capsys.readouterr()
    main(["evaluate", run, *typed])
    lines = capsys.readouterr().out.splitlines()
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    names = ["held-out text", "training text", "model, 1 steps", "model, 2 steps", "ar", "bigram", "shuffled"]
    assert list(report["table"]) == names
    assert (report["options"]["guidance"], report["options"]["temperature"]) == (3.0, 1.05)
    assert all(name in lines[0] for name in names)
    assert len({tuple(row) for row in report["table"].values()}) == 1
    assert report["table"]["bigram"]["nats_per_token"] < report["table"]["model, 1 steps"]["nats_per_token"]
    assert (tmp_path / "figures.png").stat().st_size > 1000
    assert [line[2:] for line in (tmp_path / "samples.txt").read_text(encoding="utf-8").splitlines() if line.startswith("# ")] == names
    (weights,), (teacher,) = tmp_path.glob("ar-*/model/model.safetensors"), tmp_path.glob("teacher-*")
    before = weights.stat().st_mtime_ns
    again = show(evaluate(run, Evaluation(**{**vars(options), "teacher": str(teacher)})))
    assert [line for line in again if "seconds" not in line] == [line for line in lines if "seconds" not in line]
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="not an autoregressive model"):
        evaluate(run, Evaluation(**QUICK, teacher=run))
    with pytest.raises(InputError, match="--guidance needs a diffusion model"):
        evaluate(str(weights.parent.parent), Evaluation(**QUICK, guidance=3.0, out=str(tmp_path / "unused")))
    assert not (tmp_path / "unused").exists()


def test_what_was_trained_beside_another_model_is_not_taken_for_ones_own(run: str, tmp_path: Path) -> None:
    evaluate(run, Evaluation(**QUICK, steps=1, baselines=[], out=str(tmp_path)))
    other = tmp_path / "other"
    for before, after in (("length: 24", "length: 20"), ("optimizer: muon", "optimizer: adamw")):
        shutil.copytree(run, other, dirs_exist_ok=True)
        text = (other / "config.yaml").read_text(encoding="utf-8")
        assert before in text
        (other / "config.yaml").write_text(text.replace(before, after), encoding="utf-8")
        with pytest.raises(InputError, match=r"teacher-1s was trained beside another model.* --out"):
            evaluate(str(other), Evaluation(**QUICK, steps=1, baselines=[], out=str(tmp_path)))


def test_options_that_no_weight_depends_on_do_not_discard_what_was_trained(run: str, tmp_path: Path) -> None:
    options = Evaluation(**QUICK, steps=1, baselines=[], out=str(tmp_path))
    evaluate(run, options)
    (weights,) = tmp_path.glob("teacher-*/model/model.safetensors")
    before, other = weights.stat().st_mtime_ns, tmp_path / "other"
    shutil.copytree(run, other)
    text = (other / "config.yaml").read_text(encoding="utf-8")
    changed = text.replace("log_every: 20", "log_every: 7").replace("steps: 4", "steps: 5")
    (other / "config.yaml").write_text(changed, encoding="utf-8")
    assert changed != text
    evaluate(str(other), options)
    assert weights.stat().st_mtime_ns == before


def test_rows_that_were_done_before_an_interruption_are_kept(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("textdiff.evaluate.shuffled", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, Evaluation(**QUICK, steps=1, baselines=["bigram", "shuffled"], out=str(tmp_path)))
    assert list(json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["table"]) == ["held-out text", "training text", "model", "bigram"]


def test_a_teacher_worse_than_bigrams_is_said(run: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for minutes in (1e-6, 0.02):
        caplog.clear()
        options = {**QUICK, "n": 10, "scored": 10, "teacher_minutes": minutes}
        teacher = evaluate(run, Evaluation(**options, steps=1, baselines=[], out=str(tmp_path / str(minutes))))["teacher"]
        worse = teacher["held_out_perplexity"] > teacher["bigram_perplexity"]
        assert ("worse than bigrams" in caplog.text) == worse
        assert worse or minutes == 0.02


def test_half_a_line_that_a_killed_run_left_is_not_counted(tmp_path: Path) -> None:
    lines = ['{"step": 20, "seconds": 3.0}', '{"step": 40, "seconds": 5.0}', '{"step": 60, "sec']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert trained_seconds(tmp_path / "metrics.jsonl") == 5


def test_any_causal_language_model_can_be_the_teacher(run: str, tmp_path: Path) -> None:
    words = ["<s>", "[UNK]", *{word for sentence in grammar.corpus(200, seed=0) for word in sentence.split()}]
    reader = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    reader.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=reader, bos_token="<s>", unk_token="[UNK]").save_pretrained(tmp_path / "gpt")
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(words), n_positions=32, n_embd=8, n_layer=1, n_head=1))
    torch.nn.init.zeros_(model.transformer.wte.weight)  # all words equally likely
    model.save_pretrained(tmp_path / "gpt")
    report = evaluate(run, Evaluation(**QUICK, steps=2, baselines=[], teacher=str(tmp_path / "gpt"), out=str(tmp_path / "out")))
    assert report["teacher"]["held_out_nats_per_token"] == pytest.approx(math.log(len(words)), abs=1e-4)
    own = load(run)[1]
    teacher, unknown, the = ForeignTeacher(str(tmp_path / "gpt"), own), own.token_to_id(UNK), own.token_to_id("the")
    assert perplexity(teacher, [(the, unknown, the), (unknown,)]) == pytest.approx(len(words), rel=1e-4)  # [UNK] has no spelling
    with pytest.raises(InputError, match="reads at most 32 tokens"):
        teacher.nats([(the,) * 32])
    with pytest.raises(InputError, match="nowhere"):
        evaluate(run, Evaluation(**QUICK, teacher=str(tmp_path / "nowhere")))


def test_the_grammar_judges_every_row_of_its_own_text(tokenizer: Tokenizer, corpus: Corpus) -> None:
    size = {"width": 16, "depth": 1, "heads": 1, "length": int(corpus.sizes.max())}
    model = Autoregressive(AutoregressiveConfig(vocab_size=tokenizer.get_vocab_size(), **size)).eval()
    sentences = [tuple(corpus[i].tolist()) for i in range(60)]
    judge = Judge(sentences[:20], sentences[20:40], sentences, Teacher(model), tokenizer, of_grammar=True)
    assert judge.figures(Row("right", sentences[40:]))["grammatical"] == 1
    half_reversed = [*sentences[40:50], *(sentence[::-1] for sentence in sentences[50:])]
    assert judge.figures(Row("half reversed", half_reversed))["grammatical"] == 0.5
