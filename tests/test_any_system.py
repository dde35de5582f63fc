"""Laws that make the program run on Linux, macOS and Windows."""

import ast
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from textdiff import __version__
from textdiff.cli.main import main
from textdiff.training import checkpoint

ROOT = Path(__file__).parent.parent
TINY = """# un café
data: {train: TEXT, length: 24}
model: {width: 32, depth: 1, heads: 2}
train: {steps: 2, batch_size: 16}
"""
ASCII_ONLY = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Configuration of a tiny run on a text with characters beyond ASCII."""
    text, path = tmp_path / "text.txt", tmp_path / "config.yaml"
    text.write_text("le café déjà là .\nle 世界 était là .\n" * 50, encoding="utf-8")
    path.write_text(TINY.replace("TEXT", text.as_posix()), encoding="utf-8")
    return str(path)


def opened_as_text(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that open a file or a child's output as text."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {option.arg for option in node.keywords}
        binary = any(
            isinstance(mode, ast.Constant) and mode.value in ("rb", "wb", "ab")
            for mode in node.args
        )
        opens = name == "open" or (
            name.endswith(".open") and name not in ("os.open", "Image.open", "gzip.open")
        )
        if (
            name.endswith((".read_text", ".write_text"))
            or "text" in options
            or (opens and not binary)
        ):
            yield node


@pytest.mark.parametrize("folder", ["textdiff", "image", "scripts", "tests"])
def test_every_text_file_is_opened_as_utf_8(folder: str) -> None:
    files = {
        path: ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / folder).rglob("*.py")
    }
    calls = [(path, call) for path, tree in files.items() for call in opened_as_text(tree)]
    without_encoding = [
        f"{path}:{call.lineno}"
        for path, call in calls
        if not any(
            option.arg == "encoding" and getattr(option.value, "value", "").startswith("utf-8")
            for option in call.keywords
        )
    ]
    assert not without_encoding


def test_text_beyond_ascii_works_in_an_ascii_locale(config: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    code = f"""import sys
from textdiff.cli.main import main
main(["train", "--config", {config!r}, "--run", {run!r}])
main(["continue", {run!r}, "--text", sys.argv[1], "--n", "1", "--steps", "1"])"""
    command = [sys.executable, "-c", code, "le café déjà 世界".encode()]
    done = subprocess.run(command, env=os.environ | ASCII_ONLY, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().startswith("le café déjà 世界")
    assert "vocabulary" not in done.stderr.decode()


def test_run_trains_outside_the_main_thread(config: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(main, ["train", "--config", config, "--run", str(tmp_path / "run")]).result()
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_python_m_textdiff_runs_without_installation() -> None:
    code = """import importlib.metadata, runpy, sys
def version(name, version=importlib.metadata.version):
    return version(name if name != "textdiff" else "not installed")
importlib.metadata.version, sys.argv = version, ["textdiff", "--version"]
runpy.run_module("textdiff", run_name="__main__")"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout.strip()) == (0, __version__), done.stderr


def test_flushed_files_are_open_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    flushed = []

    def fsync(
        handle: int,
    ) -> None:  # as on Windows, which flushes no file that is open for reading only
        flushed.append(handle)
        writable = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        assert writable or stat.S_ISDIR(os.fstat(handle).st_mode)

    monkeypatch.setattr(os, "fsync", fsync)
    checkpoint.save(tmp_path, 1, checkpoint.Checkpoint({"model": {"weight": torch.ones(3)}}, {}))
    checkpoint.atomic_write(tmp_path / "config.yaml", "{}")
    assert (
        len(flushed) == 6
    )  # the weights, the facts, the manifest, both folders, the configuration


def test_loaded_checkpoint_is_not_kept_open(tmp_path: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs Linux's list of mapped files")
    path = checkpoint.save(
        tmp_path, 1, checkpoint.Checkpoint({"model": {"weight": torch.ones(3)}}, {})
    )
    saved = checkpoint.load(path)
    assert str(path) not in maps.read_text(encoding="utf-8")
    assert saved.tensors["model"]["weight"].tolist() == [1, 1, 1]
