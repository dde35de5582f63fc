"""Laws of the token cache in a run: resuming, replacing, and the memory of long texts."""

import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from text_files import log_messages

from textdiff.config import TrainConfig
from textdiff.text import files, grammar, token_cache
from textdiff.text.config import DataConfig, ModelConfig, TextConfig, TokenizerConfig
from textdiff.text.dataset import training_batches
from textdiff.text.sources import open_texts
from textdiff.text.tokenizer import train_tokenizer
from textdiff.text.train import train
from textdiff.training.run_dir import open_run_dir

TINY = TextConfig(
    data=DataConfig(length=20),
    model=ModelConfig(embed_dim=8, width=16, depth=1, heads=2),
    train=TrainConfig(steps=4, batch_size=8, warmup=2, precision="no", valid_every=4, save_every=2),
)


def write_text(path: Path, seed: int = 5) -> Path:
    path.write_text("\n".join(grammar.corpus(300, seed=seed)), encoding="utf-8")
    return path


def run(folder: Path, text: Path, **options: bool) -> dict:
    """Weights after training."""
    config = replace(TINY, run=str(folder), data=replace(TINY.data, train=str(text)))
    train(config, open_run_dir(config, **options))
    return load_file(folder / "state" / "step-00000004" / "model.safetensors")


def test_resuming_is_exact_without_the_cache(tmp_path, caplog):
    """A damaged cache is written again, and the weights are the same bit for bit."""
    text = write_text(tmp_path / "text.txt")
    whole = run(tmp_path / "whole", text, resume=False)
    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole", stopped)
    shutil.rmtree(stopped / "state" / "step-00000004")
    for path in (stopped / "tokens").glob("train-*"):
        (path / "tokens.bin").write_bytes((path / "tokens.bin").read_bytes()[:-40])
    resumed = run(stopped, text, resume=True)
    assert any("is written again" in message for message in log_messages(caplog))
    assert resumed.keys() == whole.keys()
    assert all(resumed[name].equal(whole[name]) for name in whole)


def test_replaced_run_deletes_its_old_cache(tmp_path):
    text = write_text(tmp_path / "text.txt")
    run(tmp_path / "run", text)
    before = {path.name for path in (tmp_path / "run" / "tokens").glob("*-*")}
    write_text(text, seed=6)
    run(tmp_path / "run", text, overwrite=True)
    after = {path.name for path in (tmp_path / "run" / "tokens").glob("*-*")}
    assert len(after) == 2
    assert not before & after


# --- memory


def peak_memory(lines: int, folder: Path) -> int:
    """Most bytes of Python objects and arrays while texts are read, prepared and batched."""
    folder.mkdir()
    words = np.random.default_rng(0).integers(10, 99, lines)
    content = "".join(f"{chr(97 + word % 26) * 150} {word}\n" for word in words)
    (folder / "text.txt").write_text(content, encoding="utf-8")
    options = DataConfig(train=str(folder / "text.txt"))
    tokenizer = train_tokenizer(["10 20 30"], TokenizerConfig(min_count=1))
    open_texts(options)  # datasets writes its arrow file
    tracemalloc.start()
    texts = open_texts(options).train()
    cache = token_cache.prepare(folder, "train", texts, tokenizer, options)
    next(training_batches(token_cache.load(cache), TrainConfig(batch_size=8), 0, 0, 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_per_line_is_less_than_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "READ_BYTES", 2**16)
    monkeypatch.setattr(token_cache, "CHUNK", 500)
    peak_memory(500, tmp_path / "warm-up")
    few, many = 2_000, 12_000
    peak = {lines: peak_memory(lines, tmp_path / str(lines)) for lines in (many, few)}
    assert peak[many] - peak[few] < 30 * (many - few)  # a list of these lines alone takes 200


@pytest.mark.slow
def test_long_text_trains_in_little_memory() -> None:
    """Uses 100 MB of text; with 2,000 MB it takes a quarter of an hour, and the bound is 1,500."""
    command = [sys.executable, "scripts/benchmarks/memory.py", "--megabytes", "100"]
    command += ["--bound", "600"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
