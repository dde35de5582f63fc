"""Laws of the pictures of runs: what they show is what was logged."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

from textdiff.cli.main import main
from textdiff.config import UserError
from textdiff.evaluation import plots

LINES = [
    {"step": 5, "eps": 2.0, "schedule": 0.1, "lr": 0.1, "seconds": 1.0, "images_per_second": 3.0},
    {"step": 10, "eps": 1.0, "schedule": 0.2, "lr": 0.1, "seconds": 2.0, "grad_norm": 2.0},
    {
        "step": 10,
        "valid/eps": 1.5,
        "context_gain/-2": 1.0,
        "context_gain/-10": 0.5,
        "cross_entropy/-2": 3.0,
    },
    {"step": 12, "valid/eps": 1.4, "context_gain/-2": 2.0, "samples": ["a <b> & c"]},
]


@pytest.fixture
def unfinished(tmp_path):
    """The folder of a run without a model, killed while it wrote a line."""
    folder = tmp_path / "unfinished"
    folder.mkdir()
    text = "\n".join([*map(json.dumps, LINES), '{"step": 15, "e'])
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    return folder


def pictures(page):
    return re.findall("<img src='(.*?)'", Path(page).read_text(encoding="utf-8"))


def test_page_shows_pictures_and_samples(run, tmp_path, capsys):
    main(["plot", run, "--out", str(tmp_path / "out"), "--format", "svg"])
    page = Path(capsys.readouterr().out.strip())
    assert page == tmp_path / "out" / "index.html"
    names = ["losses.svg", "logsnr.svg", "schedule.svg", "embeddings.svg"]
    assert pictures(page) == names
    assert {each.name for each in page.parent.iterdir()} == {*names, "index.html"}
    content = page.read_text(encoding="utf-8")
    lines = (Path(run) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    samples = [text for line in lines for text in json.loads(line).get("samples", [])]
    assert samples
    assert all(plots.escape(text) in content for text in samples)


def test_unfinished_runs_have_losses_and_gains(unfinished):
    page = plots.plot_runs([str(unfinished)], unfinished / "plots", "png")
    assert pictures(page) == ["losses.png", "logsnr.png"]
    assert "a &lt;b&gt; &amp; c" in page.read_text(encoding="utf-8")


def test_pictures_of_samples_are_shown(unfinished):
    (unfinished / "samples").mkdir()
    (unfinished / "samples" / "one.png").touch()
    line = json.dumps({"step": 13, "samples": ["moved/samples/one.png"]})
    (unfinished / "metrics.jsonl").write_text(line + "\n", encoding="utf-8")
    page = plots.plot_runs([str(unfinished)], unfinished / "plots", "png")
    assert pictures(page)[-1] == "../samples/one.png"


def test_figures_are_those_of_the_log(unfinished):
    run = plots.read_run(unfinished, "a")
    assert run.losses == ["eps", "schedule"]
    assert run.values("eps") == ([5, 10], [2.0, 1.0])
    assert run.by_logsnr("cross_entropy") == [(10, [(-2.0, 3.0)])]
    assert run.by_logsnr("context_gain") == [(10, [(-10.0, 0.5), (-2.0, 1.0)]), (12, [(-2.0, 2.0)])]
    _, axis = plt.subplots()
    plots._draw_loss([run, run], "eps", axis)
    drawn = [np.array(line.get_xydata()).tolist() for line in axis.lines]
    assert drawn[:3] == [[[5, 2], [10, 1]], [[10, 1.5]], [[10, 1.5], [12, 1.4]]]
    plt.close("all")


def test_several_runs_show_their_last_validation(unfinished):
    runs = [plots.read_run(unfinished, name) for name in "ab"]
    _, axis = plt.subplots()
    plots._draw_by_logsnr(runs, "context_gain", axis)
    assert [line.get_label() for line in axis.lines[:2]] == ["a, step 12", "b, step 12"]
    assert axis.lines[0].get_xydata().tolist() == [[-2, 2]]
    plt.close("all")


def test_nearest_words_have_similar_embeddings(run):
    read = plots.read_run(Path(run), "a")
    words = read.model.words
    places = {word: i for i, word in read.words}
    cosines = (words.embeddings @ words.embeddings.T).detach()
    for word, near in plots._nearest(read, n=5):
        assert word not in near
        assert len(near) == plots.NEIGHBORS
        own = cosines[places[word]][[i for i, _ in read.words]].sort(descending=True).values
        assert cosines[places[word], places[near[0]]] == pytest.approx(own[1].item(), abs=1e-4)


def test_runs_of_the_same_name_are_told_apart(unfinished, tmp_path):
    other = tmp_path / "other" / "unfinished"
    other.mkdir(parents=True)
    (other / "metrics.jsonl").write_text('{"step": 1, "eps": 1.0}', encoding="utf-8")
    page = plots.plot_runs([str(unfinished), str(other)], tmp_path / "out", "png")
    assert f"<h2>Samples of {other}</h2>" in page.read_text(encoding="utf-8")


def test_folders_without_steps_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not the folder of a run: it has no metrics\.jsonl"):
        plots.plot_runs([str(tmp_path)], tmp_path, "png")
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(UserError, match="has no steps yet"):
        plots.plot_runs([str(tmp_path)], tmp_path, "png")
