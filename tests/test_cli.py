"""The command line as a user types it: results on standard output, one clear line and exit code 2 for a mistake."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from torch.testing import assert_close

from textdiff import grammar
from textdiff.cli import main

FOLDER = tempfile.TemporaryDirectory(prefix="textdiff-tests-")
TEXT = Path(FOLDER.name) / "text.txt"
TEXT.write_text("\n".join(grammar.corpus(400, seed=0)) + "\n", encoding="utf-8")
TINY = [
    "--data.train",
    str(TEXT),
    "--model.heads",
    "2",
    "--model.width",
    "32",
    "--model.depth",
    "1",
    "--data.length",
    "24",
    "--train.batch_size",
    "16",
    "--train.precision",
    "no",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("runs") / "tiny")
    main(["train", "--run", folder, *TINY, "--train.steps", "4", "--train.log_every", "1", "--train.save_every", "2"])
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    capsys.readouterr()
    main(arguments)
    return capsys.readouterr().out.splitlines()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("textdiff: error:")]
    assert len(lines) == 1
    return lines[0]


def test_a_run_folder_holds_what_is_promised(run: str) -> None:
    names = {path.name for path in Path(run).iterdir()}
    assert {"config.yaml", "metrics.jsonl", "state", "model"} <= names
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in (Path(run) / "model").iterdir()}
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "ce" in line] == [1, 2, 3, 4]
    assert any("context_gain/-3" in line and len(line["samples"]) for line in lines)


def test_resuming_a_finished_run_changes_nothing(run: str) -> None:
    before = (Path(run) / "model" / "model.safetensors").read_bytes()
    main(["train", "--run", run, *TINY, "--train.steps", "4", "--resume"])
    assert (Path(run) / "model" / "model.safetensors").read_bytes() == before


def test_resuming_with_other_options_is_refused_and_changes_nothing(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = (Path(run) / "config.yaml").read_bytes()
    assert "model.depth" in refusal(capsys, "train", "--run", run, "--resume", "--model.depth", "2")
    assert (Path(run) / "config.yaml").read_bytes() == before


def test_resuming_goes_on_with_the_options_of_the_run_and_those_given_now(run: str, tmp_path: Path) -> None:
    folder = str(shutil.copytree(run, tmp_path / "run"))
    main(["train", "--run", folder, "--resume", "--train.steps", "6"])
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "ce" in line] == [1, 2, 3, 4, 5, 6]


def test_resuming_to_fewer_steps_than_are_done_is_refused(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "at step 4 already" in refusal(capsys, "train", "--run", run, "--resume", "--train.steps", "2")


def test_a_text_that_begins_with_dashes_is_a_text(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = printed(capsys, "continue", run, "--text", "--well-known place", "--n", "1", "--steps", "2")
    assert line.startswith("--well-known place")


def test_a_run_folder_is_judged_before_anything_heavy_is_imported(run: str) -> None:
    code = f"import sys; from textdiff.cli import main\ntry: main(['train', '--run', {run!r}])\nfinally: assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert (result.returncode, "already holds a run" in result.stderr) == (2, True), result.stderr


def test_resuming_drops_a_line_of_the_log_that_was_cut_off(run: str, tmp_path: Path) -> None:
    log = Path(shutil.copytree(run, tmp_path / "run")) / "metrics.jsonl"
    whole = log.read_text(encoding="utf-8")
    log.write_text(whole + '{"step": 4, "ce"', encoding="utf-8")
    main(["train", "--run", str(log.parent), "--resume"])
    assert log.read_text(encoding="utf-8") == whole


def test_overwriting_with_options_that_cannot_work_leaves_the_run_alone(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    impossible = ["--model.schedule", "sqrt", "--model.logsnr_min", "5"]
    assert "model.schedule" in refusal(capsys, "train", "--run", str(folder), *TINY, "--overwrite", *impossible)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_other_data_are_not_gone_on_with_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, folder = tmp_path / "text.txt", str(tmp_path / "run")
    text.write_text("\n".join(grammar.corpus(300, seed=0)) + "\n", encoding="utf-8")
    main(["train", "--run", folder, *TINY, "--data.train", str(text), "--train.steps", "2"])
    text.write_text("\n".join(grammar.corpus(300, seed=1)) + "\n", encoding="utf-8")
    assert "the training text changed" in refusal(capsys, "train", "--run", folder, "--resume", "--train.steps", "4")


def test_a_run_is_not_both_gone_on_with_and_replaced(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--resume goes on with a run and --overwrite deletes it" in refusal(capsys, "train", "--run", run, "--resume", "--overwrite")


def test_a_first_attempt_that_fails_does_not_block_the_second(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attempt = ["train", "--run", str(tmp_path / "run"), *TINY, "--train.steps", "1"]
    refusal(capsys, *attempt, "--model.schedule", "sqrt", "--model.logsnr_min", "5")
    main(attempt)


@pytest.mark.skipif(os.name == "nt", reason="torchrun was never tried on Windows")
@pytest.mark.parametrize(("optimizer", "lr", "tolerance"), [("adamw", "1e-3", 1e-5), ("muon", "1e-4", 1e-6)])
def test_two_processes_train_the_same_model_as_one(tmp_path: Path, optimizer: str, lr: str, tolerance: float) -> None:
    options = [*TINY, "--train.steps", "5", "--train.log_every", "1", "--train.optimizer", optimizer, "--train.lr", lr]
    main(["train", "--run", str(tmp_path / "one"), *options])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--", "scripts/train_text.py"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: other sums, and Adam makes much of little
    subprocess.run([*launch, "--run", str(tmp_path / "two"), *options], check=True, capture_output=True, timeout=120, env=one_thread)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    assert_close(two, one, atol=tolerance, rtol=10 * tolerance)
    logs = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()] for name in ("one", "two")]
    assert [line["ce"] for line in logs[1] if "ce" in line] == pytest.approx([line["ce"] for line in logs[0] if "ce" in line], rel=1e-5)


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send these to another process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_stop_is_obeyed_with_a_checkpoint_to_go_on_from(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "scripts/train_text.py", "--run", str(tmp_path / "run"), *TINY, "--train.steps", "100000", "--train.log_every", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
    log = tmp_path / "run" / "metrics.jsonl"
    while not log.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    step = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["step"]
    assert f"stopped after step {step}, which is saved: go on with --resume" in errors
    assert (tmp_path / "run" / "state" / f"step-{step:08d}").is_dir()


@pytest.mark.skipif(os.name == "nt", reason="written for a POSIX shell")
@pytest.mark.parametrize("closing", ["2>&1 | head -c 50", "> /dev/null 2>&-", ">&- 2>&-"])
def test_a_run_goes_on_when_nobody_reads_what_it_says(tmp_path: Path, closing: str) -> None:
    command = [sys.executable, "scripts/train_text.py", "--run", str(tmp_path / "run"), *TINY, "--train.steps", "3", "--train.valid_every", "1"]
    subprocess.run(f"({shlex.join(command)}; echo $? > {tmp_path}/code) {closing}", shell=True, timeout=120, check=False, capture_output=True)
    assert (tmp_path / "code").read_text(encoding="utf-8") == "0\n"
    assert (tmp_path / "run" / "state" / "step-00000003").is_dir()


def test_a_model_that_has_learned_nothing_is_said_to_write_word_salad(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    main(["train", "--run", str(tmp_path / "run"), *TINY, "--train.steps", "1"])
    assert "word salad" in caplog.messages[-1]


def test_a_run_is_never_replaced_unasked(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--resume" in refusal(capsys, "train", "--run", run, *TINY)


def test_the_same_seed_gives_the_same_sentences_whatever_n(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--steps", "3", "--precision", "no"]
    five = printed(capsys, "sample", run, "--n", "5", *options)
    assert five[:2] == printed(capsys, "sample", run, "--n", "2", "--batch-size", "1", *options)
    assert five != printed(capsys, "sample", run, "--n", "5", "--seed", "1", *options)


def test_jsonl_holds_the_same_sentences(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "sample", run, "--n", "2", "--steps", "3", "--format", "jsonl")
    assert [json.loads(line)["text"] for line in lines] == printed(capsys, "sample", run, "--n", "2", "--steps", "3")


def test_rewriting_at_strength_zero_returns_the_text_exactly(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = "The  unheard-of Queen, sings !"
    assert printed(capsys, "rewrite", run, "--text", text, "--strength", "0", "--n", "2") == [text, text]


def test_infilling_leaves_the_given_characters_alone(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = printed(capsys, "infill", run, "--text", "The  Queen [MASK] zebra.", "--n", "1", "--steps", "3")
    assert line.startswith("The  Queen")
    assert line.endswith(" zebra.")
    assert "[MASK]" not in line


def test_continuing_keeps_the_beginning(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    for line in printed(capsys, "continue", run, "--text", "The Queen", "--n", "3", "--steps", "3"):
        assert line.startswith("The Queen")
        assert len(line) > len("The Queen")


def test_show_steps_prints_every_draft_on_standard_error(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    main(["sample", run, "--n", "2", "--steps", "3", "--show-steps"])
    assert sum(line.startswith("step") for line in capsys.readouterr().err.splitlines()) == 6


def test_a_run_can_be_given_minutes_instead_of_steps(tmp_path: Path) -> None:
    began = time.perf_counter()
    main(["train", "--run", str(tmp_path / "timed"), *TINY, "--train.minutes", "0.05"])
    train = yaml.safe_load((tmp_path / "timed" / "config.yaml").read_text(encoding="utf-8"))["train"]
    assert train["minutes"] is None
    assert train["steps"] == json.loads((tmp_path / "timed" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])["step"]
    assert time.perf_counter() - began > 1.5  # half of the three seconds asked for


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["sample", "MODEL", "--stpes", "4"], "steps"),
        (["samlpe", "MODEL"], "sample"),
        (["sample", "MODEL", "--steps", "0"], "--steps"),
        (["sample", "MODEL", "--sampler", "euler"], "sampler"),
        (["sample", "MODEL", "--n", "0"], "--n"),
        (["sample", "MODEL", "--length", "999"], "24"),
        (["sample", "/nowhere/at/all"], "/nowhere/at/all"),
        (["sample", "no-such-model"], "no-such-model"),
        (["rewrite", "MODEL", "--text", "the dog .", "--strength", "2"], "--strength"),
        (["rewrite", "MODEL", "--text", " "], "--text"),
        (["infill", "MODEL", "--text", "the [MSK] sings ."], "[MASK]"),
        (["infill", "MODEL", "--text", "the dog sings ."], "[MASK]"),
        (["continue", "MODEL", "--text", "the dog " * 30], "24"),
        (["evaluate", "MODEL", "--baselines", "[gpt]"], "--baselines"),
        (["evaluate", "MODEL", "--n", "1"], "--n"),
        (["evaluate", "/nowhere/at/all"], "/nowhere/at/all"),
        (["train", "--train.step", "4"], "train.steps"),
        (["train", "--trian.steps", "4"], "train.steps"),
        (["train", "--train.steps", "many"], "--train.steps must be a whole number, got many"),
        (["sample", "MODEL", "--temperature", "hot"], "--temperature must be a number or null, got hot"),
        (["sample", "MODEL", "--format", "xml"], "--format must be one of 'text', 'jsonl', got xml"),
        (["rewrite", "MODEL", "--text", "the \udcff dog"], "--text must be valid UTF-8"),
        (["infill", "MODEL", "--text", "the [BLANK] and [MASK] ."], "[BLANK]"),
        (["infill", "MODEL", "--text", "the [mask] ."], "[MASK]"),
        (["train", "--run", "README.md/run", *TINY], "README.md"),
        (["train", "--train.seed", "9" * 30], "train.seed"),
        (["train", "--train.trackers", "[json]"], "train.trackers"),
        (["train", "--train.trackers", "trackio", "--run", "RUN"], "trackio"),
        (["train", "--train.steps", "0"], "train.steps"),
        (["train", "--model.objective", "mse"], "model.objective"),
        (["train", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["train", "--data.train", "/nowhere.txt", "--run", "RUN"], "/nowhere.txt"),
        (["train", "--train.trackers", "[nosuchtracker]", "--run", "RUN"], "nosuchtracker"),
        (["train", "--resume", "--run", "RUN"], "holds no run to go on with"),
        (["evaluate", "MODEL", "--out", "README.md"], "--out must be a folder"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_culprit(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    filled = [{"MODEL": run, "RUN": str(tmp_path / "run")}.get(argument, argument) for argument in arguments]
    assert part in refusal(capsys, *filled)
    assert not (tmp_path / "run").exists()


def test_a_misspelt_key_of_a_config_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("train:\n  stpes: 4\n", encoding="utf-8")
    assert "train.steps" in refusal(capsys, "train", "--config", str(path))


@pytest.mark.parametrize(
    ("text", "part"),
    [("train:\n  precision: no\n", "put it in quotes"), ("model: 5\n", "model"), ("train:\n", "train"), ("just words\n", "config")],
)
def test_a_config_file_of_the_wrong_shape_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, part: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    assert part in refusal(capsys, "train", "--config", str(path), "--run", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_truncated_model_is_refused(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (Path(run) / "model").iterdir():
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data[: len(data) // 2] if path.suffix == ".safetensors" else data)
    assert str(tmp_path) in refusal(capsys, "sample", str(tmp_path))


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["sample"], ["rewrite"], ["infill"], ["continue"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    code = f"import sys; from textdiff.cli import main\ntry: main({[*command, '--help']!r})\nfinally: assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    assert "usage: textdiff" in result.stdout


def test_a_misspelt_key_of_a_runs_configuration_is_named(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copytree(run, tmp_path / "run")) / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("depth:", "depht:"), encoding="utf-8")
    line = refusal(capsys, "evaluate", str(path.parent))
    assert f"{path} has the unknown option model.depht (did you mean model.depth?)" in line
