"""The image commands as a user types them, with a tiny model of the digits."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from image import metrics
from image.cli import main

TINY = ["--model.width", "8", "--model.multipliers", "[1,2]", "--model.blocks", "1", "--train.batch_size", "16", "--train.precision", "no"]
STEPS = ["--train.steps", "4", "--train.log_every", "1", "--train.save_every", "2", "--train.valid_every", "4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("runs") / "tiny")
    main("train", ["--run", folder, *TINY, *STEPS])
    return folder


@pytest.fixture
def square(tmp_path: Path) -> str:
    """A picture, white on its left half."""
    image = Image.new("L", (16, 16))
    image.paste(255, (0, 0, 8, 16))
    image.save(tmp_path / "square.png")
    return str(tmp_path / "square.png")


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def complaint(capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> str:
    """The one line that a mistake prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(command, arguments)
    assert left.value.code == 2
    printed = capsys.readouterr()
    assert not printed.out
    (line,) = [line for line in printed.err.splitlines() if line.startswith("textdiff: error: ")]
    assert "Traceback" not in printed.err
    return line


def test_a_run_folder_holds_what_is_promised(run):
    found = {str(path.relative_to(run)) for path in Path(run).rglob("*")}
    assert {"config.yaml", "metrics.jsonl", "samples/step-000004.png", "state", "model/config.json", "model/model.safetensors"} <= found
    lines = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4]
    assert {"eps", "images_per_second", "lr"} <= lines[0].keys()
    assert "valid/eps" in lines[-1]


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(run, tmp_path):
    half = str(tmp_path / "half")
    main("train", ["--run", half, *TINY, *STEPS, "--train.steps", "2", "--train.warmup", "100"])
    main("train", ["--run", half, "--resume", "--train.steps", "4"])
    whole = str(tmp_path / "whole")
    main("train", ["--run", whole, *TINY, *STEPS, "--train.warmup", "100"])
    assert Path(half, "model/model.safetensors").read_bytes() == Path(whole, "model/model.safetensors").read_bytes()


def test_two_runs_cannot_have_one_folder(tmp_path, capsys):
    (tmp_path / "busy").mkdir()
    with FileLock(tmp_path / "busy" / ".lock"):
        assert "another run is writing to" in complaint(capsys, "train", "--run", str(tmp_path / "busy"), *TINY, *STEPS)


def test_samples_become_a_grid_files_and_a_film(run, tmp_path, capsys):
    out, files, film = tmp_path / "grid.png", tmp_path / "files", tmp_path / "film.gif"
    main("sample", [run, "--n", "5", "--steps", "3", "--out", str(out), "--files", str(files), "--gif", str(film)])
    assert capsys.readouterr().out.splitlines() == [str(out)]
    assert [size(path) for path in sorted(files.iterdir())] == [(8, 8)] * 5
    with Image.open(film) as frames:
        assert frames.n_frames == 3


@pytest.mark.parametrize("what", [["--edit"], ["--inpaint", "--mask"], ["--interpolate"]], ids=["edit", "inpaint", "interpolate"])
def test_images_of_other_sizes_are_taken_in(run, square, tmp_path, what):
    given = [what[0], square, square] if what == ["--interpolate"] else [word for option in what for word in (option, square)]
    main("sample", [run, "--n", "3", "--steps", "3", *given, "--out", str(tmp_path / "out.png")])
    assert (tmp_path / "out.png").exists()


def test_the_same_seed_gives_the_same_files(run, tmp_path):
    for name in ("a", "b"):
        main("sample", [run, "--n", "3", "--steps", "3", "--class", "3", "--guidance", "2", "--out", str(tmp_path / f"{name}.png")])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_an_evaluation_prints_a_table_and_writes_what_it_promises(run, tmp_path, capsys, monkeypatch):
    quickly = partial(metrics.train_classifier, examples=12_000)
    monkeypatch.setattr(metrics, "train_classifier", quickly)
    options = ["--n", "40", "--steps", "[2,3]", "--samplers", "[ddpm,ddim]", "--scored", "4", "--ode", "2", "--out", str(tmp_path)]
    main("evaluate", [run, *options])
    table = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["table"]
    assert [*table] == ["training images", "ddpm 2", "ddpm 3", "ddim 2", "ddim 3"]
    assert table["ddpm 2"]["compared"] == table["training images"]["compared"] == 40
    assert table["training images"]["frechet_distance"] < table["ddpm 2"]["frechet_distance"]
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["classifier_accuracy"] > 0.8
    assert all(row["frechet_distance"] > 0 for row in table.values())
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[1:-1]] == [*table["ddpm 2"]]
    assert {"steps.png", "nearest.png", "samples-ddim-3.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("train", ["--data.trian", "x"], "did you mean --data.train"),
        ("train", ["--data.train", "nowhere.png"], "nowhere.png does not exist"),
        ("train", ["--model.width", "9"], "model.width must be a multiple of 4"),
        ("train", ["--model.attention", "[3]"], "model.attention must be of 0 to 2"),
        ("train", ["--train.steps", "many"], "--train.steps must be a whole number"),
        ("sample", ["nowhere"], "nowhere is not a folder"),
        ("sample", ["RUN", "--out", "a.hdf"], "--out must be a file of a known kind"),
        ("evaluate", ["RUN", "--out", "README.md"], "--out must be a folder"),
        ("evaluate", ["RUN", "--ode", "1"], "--ode must be 0, or 2 and more"),
        ("train", ["--resume", "--run", "/nowhere/at/all"], "holds no run to go on with"),
        ("sample", ["RUN", "--class", "ten"], "--class must be one of 0, 1"),
        ("sample", ["RUN", "--class", "10"], "--class must be one of 0, 1"),
        ("sample", ["RUN", "--inpaint", "a.png"], "--inpaint must be given with --mask"),
        ("sample", ["RUN", "--edit", "SQUARE", "--guidance", "2"], "--guidance with --edit must be given with --class"),
        ("sample", ["RUN", "--inpaint", "SQUARE", "--mask", "SMALL"], "--mask must be as large as the image, 16x16, got '8x8'"),
        ("sample", ["RUN", "--interpolate", "SQUARE", "SQUARE", "--n", "1"], "--n of --interpolate must be at least 2"),
        ("sample", ["RUN", "--gif", "film.mp4"], "--gif must be a .gif file"),
        ("sample", ["RUN", "--files", "SQUARE"], "--files must be a folder"),
        ("train", ["--config", "SQUARE"], "--config wants YAML"),
        ("train", ["--config", "nowhere.yaml"], "nowhere.yaml' does not exist"),
        ("evaluate", ["RUN", "--guidance", "-1"], "--guidance must be 0 or more"),
        ("sample", ["RUN", "--edit", "nowhere.png"], "nowhere.png: No such file"),
        ("sample", ["RUN", "--edit", "BROKEN"], "BROKEN"),
        ("sample", ["RUN", "--out", "grid.nothing", "--steps", "1", "--n", "1"], "grid.nothing"),
        ("sample", ["RUN", "--n", "0"], "--n must be at least 1"),
        ("evaluate", ["RUN", "--samplers", "euler"], "--samplers must be of ddpm"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(run, square, tmp_path, capsys, command, arguments, message):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG nonsense")
    Image.new("L", (8, 8)).save(tmp_path / "small.png")
    swapped = {"RUN": run, "BROKEN": str(broken), "SQUARE": square, "SMALL": str(tmp_path / "small.png")}
    assert swapped.get(message, message) in complaint(capsys, command, *(swapped.get(word, word) for word in arguments))


@pytest.mark.parametrize("script", ["train_image", "sample_image", "evaluate_image"])
def test_help_is_there_before_anything_heavy_is_imported(script):
    code = f"import sys, runpy; sys.argv = ['{script}.py', '--help']\ntry: runpy.run_path('scripts/{script}.py', run_name='__main__')\n"
    code += "finally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: {script}.py" in done.stdout


def test_a_misspelt_key_of_a_runs_configuration_is_named(run, tmp_path, capsys):
    path = Path(shutil.copytree(run, tmp_path / "run")) / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("blocks:", "block:"), encoding="utf-8")
    line = complaint(capsys, "evaluate", str(path.parent))
    assert f"{path} has the unknown option model.block (did you mean model.blocks?)" in line
