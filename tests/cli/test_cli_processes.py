"""Processes that train: several at once, stopped by a signal, or without a reader."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_runs import TINY, TRAIN_SCRIPT, read_log
from safetensors.torch import load_file
from torch.testing import assert_close

from textdiff.cli.main import main

LAUNCH = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
    *("--", "scripts/train_text.py"),
]


@pytest.mark.skipif(os.name == "nt", reason="torchrun was never tried on Windows")
@pytest.mark.parametrize(
    ("optimizer", "lr", "tolerance"),
    [
        pytest.param("adamw", "1e-3", 1e-5, marks=pytest.mark.slow),  # also in test_sharding
        ("muon", "1e-4", 1e-6),
    ],
)
def test_two_processes_train_the_same_model(
    tmp_path: Path, optimizer: str, lr: str, tolerance: float
) -> None:
    steps = f"--train.steps 5 --train.log_every 1 --train.optimizer {optimizer} --train.lr {lr}"
    options = [*TINY, *steps.split()]
    runs = tmp_path / "one", tmp_path / "two"
    main(["train", "--run", str(runs[0]), *options])
    # other sums with more threads; Adam amplifies small differences
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*LAUNCH, "--run", str(runs[1]), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=environment)
    one, two = (load_file(run / "model" / "model.safetensors") for run in runs)
    assert_close(two, one, atol=tolerance, rtol=10 * tolerance)
    one, two = ([line["ce"] for line in read_log(run) if "ce" in line] for run in runs)
    assert two == pytest.approx(one, rel=1e-5)


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send these to another process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_run_with_checkpoint(tmp_path: Path, number: int) -> None:
    run, steps = tmp_path / "run", "--train.steps 100000 --train.log_every 1"
    command = [*TRAIN_SCRIPT, "--run", str(run), *TINY, *steps.split()]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
    while not (run / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    step = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])["step"]
    assert f"stopped after step {step}; continue with --resume" in errors
    assert (run / "state" / f"step-{step:08d}").is_dir()


@pytest.mark.skipif(os.name == "nt", reason="written for a POSIX shell")
@pytest.mark.parametrize(
    "closing",
    ["2>&1 | head -c 50", pytest.param("> /dev/null 2>&-", marks=pytest.mark.slow), ">&- 2>&-"],
)
def test_run_continues_without_reader(tmp_path: Path, closing: str) -> None:
    run, steps = tmp_path / "run", "--train.steps 3 --train.valid_every 1"
    command = shlex.join([*TRAIN_SCRIPT, "--run", str(run), *TINY, *steps.split()])
    line = f"({command}; echo $? > {tmp_path}/code) {closing}"
    subprocess.run(line, shell=True, timeout=120, check=False, capture_output=True)
    assert (tmp_path / "code").read_text(encoding="utf-8") == "0\n"
    assert (run / "state" / "step-00000003").is_dir()
