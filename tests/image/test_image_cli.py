"""Laws of the image commands, with a tiny model of the digits."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from image import metrics
from image.cli import main


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_run_folder_has_the_documented_files(run):
    found = {str(path.relative_to(run)) for path in Path(run).rglob("*")}
    files = {"config.yaml", "metrics.jsonl", "samples/step-000004.png", "state"}
    assert files | {"model/config.json", "model/model.safetensors"} <= found
    log = Path(run, "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4]
    assert {"eps", "images_per_second", "lr"} <= lines[0].keys()
    assert "valid/eps" in lines[-1]


def test_resumed_run_ends_with_the_same_weights(tiny_run, tmp_path):
    half, whole = str(tmp_path / "half"), str(tmp_path / "whole")
    options = [*tiny_run, "--train.warmup", "100"]
    main("train", ["--run", half, *options, "--train.steps", "2"])
    main("train", ["--run", half, "--resume", "--train.steps", "4"])
    main("train", ["--run", whole, *options])
    resumed, direct = (Path(each, "model/model.safetensors") for each in (half, whole))
    assert resumed.read_bytes() == direct.read_bytes()


def test_sample_writes_grid_files_and_animation(run, tmp_path, capsys):
    out, files, animation = tmp_path / "grid.png", tmp_path / "files", tmp_path / "steps.gif"
    options = ["--n", "5", "--steps", "3", "--sampler", "ddpm"]
    options += ["--out", str(out), "--files", str(files)]
    main("sample", [run, *options, "--gif", str(animation)])
    assert capsys.readouterr().out.splitlines() == [str(out)]
    assert size(out)[0] > 8
    assert [size(path) for path in sorted(files.iterdir())] == [(8, 8)] * 5
    with Image.open(animation) as frames:
        assert frames.n_frames == 3


@pytest.mark.parametrize(
    "options",
    [
        ["--edit", "A"],
        ["--inpaint", "A", "--mask", "A", "--order", "raster", "--window", "4"],
        ["--interpolate", "A", "A"],
    ],
    ids=["edit", "inpaint", "interpolate"],
)
def test_images_of_other_sizes_are_fitted(run, square, tmp_path, options):
    given = [square if option == "A" else option for option in options]
    main("sample", [run, "--n", "3", "--steps", "3", *given, "--out", str(tmp_path / "out.png")])
    assert (tmp_path / "out.png").exists()


def test_same_seed_gives_the_same_files(run, tmp_path):
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    options = ["--n", "3", "--steps", "3", "--class", "3", "--guidance_scale", "2"]
    for path in (a, b):
        main("sample", [run, *options, "--out", str(path)])
    assert a.read_bytes() == b.read_bytes()


def test_evaluate_prints_and_writes_the_report(run, tmp_path, capsys, monkeypatch):
    quick = partial(metrics.train_classifier, examples=12_000)
    monkeypatch.setattr(metrics, "train_classifier", quick)
    rows = ["--n", "40", "--steps", "[2,3]", "--samplers", "[ddpm,ddim]"]
    main("evaluate", [run, *rows, "--scored", "4", "--ode", "2", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    table, real, sampled = report["table"], *[*report["table"].values()][:2]
    assert [*table] == ["training images", "ddpm 2", "ddpm 3", "ddim 2", "ddim 3"]
    assert sampled["compared"] == real["compared"] == 40
    assert real["frechet_distance"] < sampled["frechet_distance"]
    assert report["classifier_accuracy"] > 0.8
    assert all(row["frechet_distance"] > 0 for row in table.values())
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[1:-1]] == [*sampled]
    files = {path.name for path in tmp_path.iterdir()}
    assert {"steps.png", "nearest.png", "samples-ddim-3.png"} <= files


@pytest.mark.parametrize("script", ["train_image", "sample_image", "evaluate_image"])
def test_help_needs_no_heavy_imports(script):
    code = (
        f"import sys, runpy; sys.argv = ['{script}.py', '--help']\n"
        f"try: runpy.run_path('scripts/{script}.py', run_name='__main__')\n"
        "finally: assert 'torch' not in sys.modules"
    )
    command, root = [sys.executable, "-c", code], Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: {script}.py" in done.stdout
