"""Laws of the page's server: all requests are answered, and nothing else is served."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio_client import Client

from image import ImageDiffusion
from textdiff.config import TrainConfig, UserError
from textdiff.demo import default_model, page
from textdiff.demo.frames import CONCURRENT, Frame, connect, new_frames
from textdiff.text import grammar
from textdiff.text.config import DataConfig, ModelConfig, TextConfig
from textdiff.text.train import train
from textdiff.training.run_dir import steps_done

AT_ONCE = 32


class Counter:
    """A task that counts its steps and how many of it run at the same time."""

    def __init__(self, steps: int) -> None:
        self.all, self.done, self.running, self.most = steps, 0, 0, 0

    def frames(self) -> Iterator[Frame]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for number in range(self.all):
                self.done += 1
                time.sleep(0.01)
                yield Frame(str(number), self.all, "")
        finally:
            self.running -= 1


@pytest.fixture
def counted(request) -> Iterator[tuple[Counter, str]]:
    """A counter with as many steps as the parameter says, and the address of its page."""
    counter = Counter(request.param)
    with gr.Blocks() as blocks:
        button, view = gr.Button(), new_frames("count")
        connect([button.click], counter.frames, [], view)
    yield counter, page.launch(blocks, "127.0.0.1", None).rstrip("/")
    blocks.close()


def ask(address: str, task: str, *values: object) -> dict:
    client = Client(address, verbose=False)
    try:
        return client.predict(*values, api_name=f"/{task}")
    finally:
        client.close()


@pytest.mark.parametrize("counted", [5], indirect=True)
def test_requests_at_once_are_queued_and_answered(counted):
    counter, address = counted
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [*pool.map(ask, [address] * AT_ONCE, ["count"] * AT_ONCE)]
    assert [len(each["frames"]) for each in found] == [5] * AT_ONCE
    assert counter.most <= CONCURRENT


@pytest.mark.parametrize("counted", [3000], indirect=True)
def test_left_request_stops_computing(counted):
    counter, address = counted
    session = {"fn_index": 0, "session_hash": "left"}
    asked = httpx.post(f"{address}/gradio_api/queue/join", json={"data": [], **session})
    asked.raise_for_status()
    with httpx.stream("GET", f"{address}/gradio_api/queue/data?session_hash=left") as events:
        lines = (line for line in events.iter_lines() if line.startswith("data:"))
        assert any(json.loads(line[5:])["msg"] == "process_generating" for line in lines)
    ends = time.monotonic() + 20
    while counter.running and time.monotonic() < ends:
        time.sleep(0.1)
    assert not counter.running
    assert counter.done < counter.all


def test_tasks_of_the_page_answer(address):
    """With the values that the page has at first."""
    for task in ("write", "rewrite"):
        found = ask(address, task)
        assert found["error"] == ""
        assert len(found["frames"]) == found["steps"] > 1


@pytest.mark.parametrize("text", ["", "  ", "dog " * 600])
def test_unusable_text_is_one_line(address, text):
    found = ask(address, "rewrite", text)
    assert re.match("the text (is empty|has 2,399 characters): ", found["error"])
    assert "\n" not in found["error"]


def test_unknown_words_are_named(address):
    found = ask(address, "rewrite", "the king sees a xylophone .")
    assert found["note"] == "Not in the model's vocabulary: xylophone."
    assert found["frames"]


@pytest.mark.parametrize("values", [(9,), (4, 21), (4, 0, 101), (4, 0, 16, "euler")])
def test_values_beyond_the_controls_are_refused(address, values):
    """Also where no browser checks them: texts, length, steps, sampler."""
    with pytest.raises(Exception, match=r"(?i)maximum|choices|upstream"):
        ask(address, "write", *values)


def test_pictures_of_the_page_are_served(image_model, tmp_path, monkeypatch):
    """`serve` builds the page where its server reads pictures, and the folder does not stay."""
    ImageDiffusion(image_model).save_pretrained(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    found = []

    def launched(blocks, host, port, wait):
        config = json.dumps(blocks.get_config_file())
        address = launch(blocks, host, None).rstrip("/")
        for path in filter(os.path.isabs, re.findall(r'"path": "([^"]+[.]png)"', config)):
            status = httpx.get(f"{address}/gradio_api/file={path}").status_code
            found.append((Path(path), status))
        blocks.close()

    launch = page.launch
    monkeypatch.setattr(page, "launch", launched)
    page.serve([str(tmp_path)], "127.0.0.1", 0)
    assert found
    assert [path for path, status in found if status != 200] == []
    assert not any(path.exists() for path, _ in found)


@pytest.mark.parametrize("path", ["pyproject.toml", "/etc/passwd", "../etc/passwd", page.__file__])
def test_files_are_not_served(address, path):
    for route in ("/gradio_api/file=", "/file=", "/gradio_api/stream/", "/static/", "/"):
        answer = httpx.get(f"{address}{route}{path}")
        assert answer.status_code in (403, 404, 405), (route, answer.status_code)


def test_large_upload_is_refused(address):
    content = {"files": ("a.png", b"0" * 5_000_000)}
    assert httpx.post(f"{address}/gradio_api/upload", files=content).status_code == 413


def test_port_in_use_is_one_line():
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = used.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port}.*choose another --port"):
            page.serve([], "127.0.0.1", port)


def test_folder_without_model_is_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no model"):
        page.open_model(str(tmp_path))


def test_model_of_unknown_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(UserError, match="a model of type bert"):
        page.open_model(str(tmp_path))


def test_command_line_does_not_import_gradio():
    code = "import sys, textdiff, textdiff.cli.main; sys.exit('gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unfinished_default_model_is_trained_on(tmp_path, monkeypatch):
    """A run that was interrupted is continued, and a finished one is used as it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text("\n".join(grammar.corpus(100)), encoding="utf-8")
    begun = TextConfig(
        run="runs/demo",
        data=DataConfig(train="my.txt", length=16),
        model=ModelConfig(width=8, depth=1, heads=1, embed_dim=8),
        train=TrainConfig(steps=4, batch_size=8, save_every=2, warmup=1),
    )
    train(replace(begun, train=replace(begun.train, steps=2)))
    path = tmp_path / "runs/demo/config.yaml"
    options = path.read_text(encoding="utf-8").replace("  steps: 2", "  steps: 4")
    path.write_text(options, encoding="utf-8")
    assert default_model.default_model("127.0.0.1", 0) == "runs/demo"
    assert steps_done(tmp_path / "runs/demo/state") == 4
    monkeypatch.setattr(default_model, "open_run_dir", None)  # not called
    assert default_model.default_model("127.0.0.1", 0) == "runs/demo"
