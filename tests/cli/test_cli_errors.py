"""Errors of the user: one line with the name of the input, and exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import TINY, refusal

from textdiff.cli.main import main

LONG = "the dog " * 30
MISTAKES = [
    (["sample", "MODEL", "--stpes", "4"], "--steps"),
    (["samlpe", "MODEL"], "(did you mean sample?)"),
    (["sample", "MODEL", "--sampler", "no_such_sampler"], "sampler"),
    (["sample", "MODEL", "--length", "999"], "24"),
    (["sample", "/nowhere/at/all"], "/nowhere/at/all"),
    (["sample", "no-such-model"], "no-such-model"),
    (["sample", "MODEL", "--temperature", "hot"], "--temperature must be a number or null, got"),
    (
        ["sample", "MODEL", "--format", "xml"],
        "--format must be one of 'text', 'table', 'jsonl', got xml",
    ),
    (["rewrite", "MODEL", "--text", "the \udcff dog"], "--text must be valid UTF-8"),
    ([], "missing: a command"),
    (["sample"], "missing: model"),
    (["sample", "MODEL", "--forbid"], "--forbid needs a value"),
    (["rewrite", "MODEL", "--text", "the dog", "--strength", "0.2,high"], "--strength must be"),
    (["rewrite", "MODEL", "--text", "the [MASK*] ."], "which infill fills"),
    (["continue", "MODEL", "--text", "the [MASK*] ."], "which infill fills"),
    (["infill", "MODEL", "--text", LONG + "[MASK*]"], "24"),
    (["infill", "MODEL", "--text", "the [MSK] sings ."], "[MASK]"),
    (["infill", "MODEL", "--text", "the dog sings ."], "[MASK]"),
    (["infill", "MODEL", "--text", "the [BLANK] and [MASK] ."], "[BLANK]"),
    (["infill", "MODEL", "--text", "the [mask] ."], "[MASK]"),
    (["continue", "MODEL", "--text", LONG], "24"),
    (["evaluate", "MODEL", "--baselines", "[gpt]"], "--baselines"),
    (["evaluate", "MODEL", "--temperature", "0"], "--temperature"),
    (["evaluate", "MODEL", "--out", "README.md"], "--out must be a folder"),
    (["evaluate", "/nowhere/at/all"], "/nowhere/at/all"),
    (["train", "--train.step", "4"], "--train.steps"),
    (["train", "--trian.steps", "4"], "--train.steps"),
    (["train", "--train.steps", "many"], "--train.steps must be a whole number, got many"),
    (["train", "--train.steps", "0"], "train.steps"),
    (["train", "--train.seed", "9" * 30], "train.seed"),
    (["train", "--train.trackers", "[json]"], "train.trackers"),
    (["train", "--train.trackers", "trackio", "--run", "RUN"], "trackio"),
    (["train", "--train.trackers", "[nosuchtracker]", "--run", "RUN"], "nosuchtracker"),
    (["train", "--model.objective", "mse"], "model.objective"),
    (["train", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
    (["train", "--data.train", "/nowhere.txt", "--run", "RUN"], "/nowhere.txt"),
    (["train", "--run", "README.md/run", *TINY], "README.md"),
    (["train", "--resume", "--run", "RUN"], "holds no run to continue"),
]
CONFIG_FILES = [
    ("train:\n  stpes: 4\n", "unknown option train.stpes (did you mean train.steps?)"),
    ("trian:\n  steps: 4\n", "unknown option trian (did you mean train?)"),
    ("train:\n  steps: many\n", "--train.steps must be a whole number, got many"),
    ("train:\n  precision: no\n", "put it in quotes"),
    ("run: 5\n", "--run must be a text, got 5"),
    ("model: 5\n", "model must be a section of options, got 5"),
    ("train:\n", "train must be a section of options, got None"),
    ("just words\n", "must hold options"),
    ("train: [\n", "cannot be read as YAML"),
]
PUZZLING = (
    "Path to a configuration file",
    "program's version number",
    "customizes",
    "[options] train",
)
NO_MODEL = [  # mistakes that are found before a model is loaded
    (["sample", "--n", "0"], "--n must be between 1 and 10,000,000, got 0"),
    (["sample", "--steps", "0"], "--steps must be at least 1"),
    (["sample", "--temperature", "-1"], "--temperature must be between"),
    (["sample", "--length", "0"], "--length must be at least 1"),
    (["sample", "--rank", "0"], "--rank must be between"),
    (["rewrite", "--text", "the dog .", "--strength", "2"], "--strength must be between"),
    (["rewrite", "--text", " "], "--text must be a text"),
    (["infill", "--text", "the [MASK] .", "--longest", "0"], "--longest must be at least 1"),
    (["generate", "--source", "the dog .", "--mbr", "0"], "--mbr must be at least 1"),
    (["evaluate", "--n", "1"], "--n must be at least"),
    (["train-classifier", "--data.train", "a.csv", "--steps", "0"], "--steps must be at least 1"),
]
COMMANDS = [[], ["train"], ["evaluate"], ["sample"], ["rewrite"], ["infill"], ["continue"]]


@pytest.mark.parametrize(("arguments", "part"), MISTAKES)
def test_mistake_is_one_line_with_name(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    names = {"MODEL": run, "RUN": str(tmp_path / "run")}
    assert part in refusal(capsys, *(names.get(argument, argument) for argument in arguments))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "--model", "3"], "--model must be a YAML file with options, got '3'"),
        (["train", "--data.train"], "--data.train needs a value"),
        (["evaluate", "x", "--steps", "[1,a]"], "--steps must be a whole number, got [1, 'a']"),
        (["train", "--model.width="], "--model.width must be a whole number, got nothing"),
        (["train", "--model.width", "null"], "--model.width must be a whole number, got null"),
    ],
)
def test_errors_of_the_parser_are_plain(
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    assert refusal(capsys, *arguments) == f"textdiff: error: {line}"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("prior_contexts: abc\n", "must be a whole number, got abc"),
        ("widht: 8\n", "--model has the unknown option model.widht (did you mean model.width?)"),
    ],
)
def test_mistakes_in_section_files_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, part: str
) -> None:
    (tmp_path / "model.yaml").write_text(content, encoding="utf-8")
    assert part in refusal(capsys, "train", "--model", str(tmp_path / "model.yaml"))


@pytest.mark.parametrize("command", [[], ["train"]])
def test_help_is_in_our_words(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert not [words for words in PUZZLING if words in printed]


@pytest.mark.parametrize(("arguments", "part"), NO_MODEL)
def test_options_are_checked_before_the_model(
    capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    command, *options = arguments
    assert part in refusal(capsys, command, "/nowhere/at/all", *options)


@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize(("text", "part"), CONFIG_FILES)
def test_bad_config_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, part: str, resume: list[str]
) -> None:
    path, run = tmp_path / "config.yaml", tmp_path / "run"
    path.write_text(text, encoding="utf-8")
    run.mkdir()
    (run / "config.yaml").write_text("train: {steps: 3}", encoding="utf-8")
    line = refusal(capsys, "train", *resume, "--run", str(run), "--config", str(path))
    assert part in line
    assert line.count(str(path)) == 1
    assert len(list(run.iterdir())) == 1


def test_truncated_model_is_refused(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (Path(run) / "model").iterdir():
        data = path.read_bytes()
        size = len(data) // 2 if path.suffix == ".safetensors" else len(data)
        (tmp_path / path.name).write_bytes(data[:size])
    assert str(tmp_path) in refusal(capsys, "sample", str(tmp_path))


def test_misspelled_key_of_run_is_named(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("depth:", "depht:"), encoding="utf-8")
    line = refusal(capsys, "evaluate", str(copied))
    assert f"{path} has the unknown option model.depht (did you mean model.depth?)" in line
    assert line.count(str(path)) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    call = f"main({[*command, '--help']!r})"
    code = f"import sys; from textdiff.cli.main import main\ntry: {call}\n"
    code += "finally: assert 'torch' not in sys.modules"
    program = [sys.executable, "-c", code]
    result = subprocess.run(program, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    assert "usage: textdiff" in result.stdout
