"""Laws of the image commands' errors: a mistake is one line that names it."""

import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from image.cli import main

ONE_LEVEL = str(Path(__file__).parents[1] / "golden" / "images")
INPAINT = ["RUN", "--inpaint", "SQUARE", "--mask"]
INTERPOLATE = ["RUN", "--interpolate", "SQUARE", "SQUARE"]
MISTAKES = [
    ("train", ["--data.trian", "x"], "did you mean --data.train"),
    ("train", ["--data.train", "nowhere.png"], "nowhere.png does not exist"),
    ("train", ["--model.width", "9"], "model.width must be a multiple of 4"),
    ("train", ["--model.attention_levels", "[3]"], "must be a list of levels from 0 to 2"),
    ("train", ["--train.steps", "many"], "--train.steps must be a whole number"),
    ("train", ["--resume", "--run", "/nowhere/at/all"], "holds no run to continue"),
    ("train", ["--config", "SQUARE"], "SQUARE cannot be read as YAML"),
    ("train", ["--config", "nowhere.yaml"], "nowhere.yaml does not exist"),
    ("sample", ["nowhere"], "nowhere is not a folder"),
    ("sample", ["nowhere", "--n", "0"], "--n must be between 1 and"),
    ("sample", ["nowhere", "--steps", "0"], "--steps must be at least 1"),
    ("sample", ["nowhere", "--edit", "a.png", "--strength", "2"], "--strength must be between 0"),
    ("sample", ["nowhere", "--strength", "0.2"], "--strength needs --edit or --interpolate"),
    ("sample", ["nowhere", "--window", "0", "--order", "random"], "--window must be at least 1"),
    ("sample", ["nowhere", "--edit", "BROKEN"], "BROKEN: "),
    ("sample", ["RUN", "--out", "a.hdf"], "--out must be an image file"),
    ("sample", ["RUN", "--out", "grid.nothing", "--steps", "1", "--n", "1"], "grid.nothing"),
    ("sample", ["RUN", "--gif", "steps.mp4"], "--gif must be a .gif file"),
    ("sample", ["RUN", "--files", "SQUARE"], "--files must be a folder"),
    ("sample", ["RUN", "--class", "ten"], "--class must be one of 0, 1"),
    ("sample", ["RUN", "--class", "10"], "--class must be one of 0, 1"),
    ("sample", ["RUN", "--inpaint", "a.png"], "--inpaint needs --mask"),
    ("sample", [*INPAINT, "SMALL"], "--mask must be as large as the image, 16x16, got '8x8'"),
    (
        "sample",
        ["nowhere", *INTERPOLATE[1:], "--n", "1"],
        "--n of --interpolate must be at least 2",
    ),
    ("sample", [ONE_LEVEL, *INPAINT[1:], "SQUARE"], "--inpaint needs a model trained for it"),
    ("sample", [ONE_LEVEL, "--order", "random"], "--order random needs a model trained for it"),
    ("sample", ["RUN", "--order", "raster", "--window", "65"], "--window must be between 1 and 64"),
    ("sample", ["nowhere", "--window", "2"], "--window must be left out with --order parallel"),
    ("train", ["--model.stagger_prob", "2"], "model.stagger_prob must be in [0, 1]"),
    ("sample", ["RUN", "--edit", "nowhere.png"], "nowhere.png: No such file"),
    (
        "sample",
        ["RUN", "--edit", "SQUARE", "--guidance_scale", "2"],
        "--edit with --guidance_scale needs --class",
    ),
    ("evaluate", ["RUN", "--out", "README.md"], "--out must be a folder"),
    ("evaluate", ["RUN", "--ode", "1"], "--ode must be 0, or at least 2"),
    ("evaluate", ["nowhere", "--guidance_scale", "-1"], "--guidance_scale must be 0 or more"),
    ("evaluate", ["RUN", "--samplers", "no_such_sampler"], "--samplers must be one of ddpm"),
]


def error_line(capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> str:
    """The one line that a mistake prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(command, arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert not printed.out
    (line,) = [line for line in printed.err.splitlines() if line.startswith("textdiff: error: ")]
    assert "Traceback" not in printed.err
    return line


@pytest.mark.parametrize(("command", "arguments", "message"), MISTAKES)
def test_mistake_is_one_line_that_names_it(
    run, square, tmp_path, capsys, command, arguments, message
):
    broken, small = tmp_path / "broken.png", tmp_path / "small.png"
    broken.write_bytes(b"\x89PNG nonsense")
    Image.new("L", (8, 8)).save(small)
    files = {"RUN": run, "BROKEN": str(broken), "SQUARE": square, "SMALL": str(small)}
    line = error_line(capsys, command, *(files.get(word, word) for word in arguments))
    for name, path in files.items():
        message = message.replace(name, path)
    assert message in line


def test_two_runs_cannot_share_one_folder(tiny_run, tmp_path, capsys):
    (tmp_path / "busy").mkdir()
    with FileLock(tmp_path / "busy" / ".lock"):
        line = error_line(capsys, "train", "--run", str(tmp_path / "busy"), *tiny_run)
    assert "another run is writing to" in line


def test_misspelled_key_in_saved_config_is_named(run, tmp_path, capsys):
    path = Path(shutil.copytree(run, tmp_path / "run")) / "config.yaml"
    content = path.read_text(encoding="utf-8").replace("res_blocks:", "res_block:")
    path.write_text(content, encoding="utf-8")
    line = error_line(capsys, "evaluate", str(path.parent))
    unknown = "the unknown option model.res_block (did you mean model.res_blocks?)"
    assert f"{path} has {unknown}" in line
