"""Laws of the choices for a machine: device, precision, threads and compilation."""

import logging
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from textdiff import device as devices
from textdiff.cli.main import main
from textdiff.config import UserError
from textdiff.device import (
    best_precision,
    choose_precision,
    emulation_factor,
    has_native_bf16,
    matmul_dtype,
)
from textdiff.timing import bf16_gain, timed

CPU = torch.device("cpu")
TINY = ["--model.width", "16", "--model.depth", "1", "--model.heads", "1"]
TINY += ["--train.steps", "2", "--train.batch_size", "8"]


@pytest.fixture
def machine(monkeypatch):
    """`machine(native, gain)`: a CPU with or without bf16 instructions, and their speed-up."""

    def pretend(native: bool, gain: float) -> None:
        rates = {torch.float32: 1e9, torch.bfloat16: gain * 1e9}
        monkeypatch.setattr(devices, "has_native_bf16", lambda _: native)
        monkeypatch.setattr(devices, "matmul_rate", lambda dtype, _: rates[dtype])
        monkeypatch.setattr(devices, "bf16_gain", lambda _, width: gain)

    cached = (choose_precision, best_precision, emulation_factor)
    for function in cached:
        function.cache_clear()
    yield pretend
    for function in cached:
        function.cache_clear()


@pytest.mark.parametrize(
    ("native", "gain", "expected"),
    [(True, 2.5, "bf16"), (True, 1.4, "no"), (True, 0.5, "no"), (False, 2.5, "no")],
)
def test_bf16_is_chosen_where_native_and_faster(machine, native, gain, expected):
    machine(native, gain)
    assert choose_precision("auto", CPU) == expected


@pytest.mark.parametrize(("native", "gain"), [(True, 2.5), (False, 0.01)])
def test_choice_is_logged_once_with_its_reason(machine, caplog, native, gain):
    machine(native, gain)
    with caplog.at_level(logging.INFO, "textdiff"):
        chosen = [choose_precision("auto", CPU) for _ in range(3)]
    (line,) = caplog.messages
    assert f"precision {chosen[0]} on " in line


def test_emulated_bf16_is_used_with_one_warning(machine, caplog):
    machine(native=False, gain=1 / 80)
    assert [choose_precision("bf16", CPU) for _ in range(2)] == ["bf16", "bf16"]
    (line,) = [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]
    assert "80 times as long as in float32" in line


@pytest.mark.parametrize("asked", ["bf16", "no"])
def test_explicit_native_precision_logs_nothing(machine, caplog, asked):
    machine(native=True, gain=2.5)
    assert choose_precision(asked, CPU) == asked
    assert not caplog.messages


def test_measurement_of_precisions_is_short():
    best_precision.cache_clear()
    bf16_gain.cache_clear()
    assert timed(lambda: best_precision(CPU), CPU) < 5.0


@pytest.mark.parametrize(("threads", "words"), [(1, ", 1 thread"), (2, ", 2 threads")])
def test_machine_name_counts_threads(monkeypatch, threads, words):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert devices.machine_name(torch.device("cpu")).endswith(words)


def test_device_without_accelerator_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert devices.own_device() == CPU


def test_each_process_has_its_own_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    found = []
    for rank in "0123":
        monkeypatch.setenv("LOCAL_RANK", rank)
        found.append(str(devices.own_device()))
    assert found == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert devices.own_device() == CPU


def test_gpu_without_native_bf16_uses_float32(monkeypatch):
    best_precision.cache_clear()
    has_native_bf16.cache_clear()
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation
    )
    assert best_precision(torch.device("cuda")).precision == "no"
    assert best_precision(torch.device("mps")).precision == "no"


def test_resumed_run_keeps_its_recorded_precision(tmp_path, monkeypatch):
    run, text = str(tmp_path / "run"), tmp_path / "text.txt"
    text.write_text("the king sees the queen .\n" * 50, encoding="utf-8")

    def train(auto: str, *options: str) -> str:
        """The recorded precision of a run, where `auto` is chosen for the precision auto."""
        choose = lambda asked, *_: auto if asked == "auto" else asked  # noqa: E731
        monkeypatch.setattr("textdiff.training.loop.choose_precision", choose)
        main(["train", "--run", run, *options])
        saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
        return saved["train"]["precision"]

    assert train("no", "--data.train", str(text), *TINY) == "no"
    assert train("bf16", "--resume", "--train.steps", "3", "--train.precision", "auto") == "no"


THREADS = """
import torch
from textdiff.device import set_threads
torch.set_num_threads(1)
set_threads()
print(torch.get_num_threads())
"""


@pytest.mark.parametrize("launcher", ["ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"])
@pytest.mark.parametrize("chosen", [True, False])
def test_omp_num_threads_of_the_user_is_kept(
    tmp_path: Path, monkeypatch, chosen: bool, launcher: str
):
    """Launchers set it to 1 in the processes that they start, even if the user has not set it."""
    (tmp_path / "script.py").write_text(THREADS, encoding="utf-8")
    environment = {"OMP_NUM_THREADS": "1", launcher: "no"}
    command = f"[sys.executable, {str(tmp_path / 'script.py')!r}]"
    code = f"import os, subprocess, sys; os.environ |= {environment}; "
    code += f"sys.exit(subprocess.run({command}).returncode)"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert int(done.stdout) == (1 if chosen else psutil.cpu_count(logical=False))


def test_emulated_bf16_is_not_used_for_matrices(machine):
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        machine(native, gain=1.0)
        assert matmul_dtype("bf16", CPU) == dtype
        assert matmul_dtype("no", CPU) == torch.float32


def test_compilation_by_default_needs_a_complete_gpu(monkeypatch):
    cuda = torch.device("cuda")
    for missing in (None, "a C compiler"):
        monkeypatch.setattr(devices, "compile_lacks", lambda _, missing=missing: missing)
        assert devices.compiles("auto", cuda) == (missing is None)
        assert not devices.compiles("auto", CPU)
        assert not devices.compiles(False, cuda)


def test_requested_compilation_without_compiler_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    devices.compile_lacks.cache_clear()
    with pytest.raises(UserError, match=r"train\.compile true needs a C\+\+ compiler"):
        devices.compiles(True, CPU)
    text = tmp_path / "text.txt"
    text.write_text("the king sees the queen .\n" * 50, encoding="utf-8")
    options = ["--run", str(tmp_path / "run"), "--data.train", str(text), *TINY]
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(SystemExit) as end:
        main(["train", *options, "--train.compile", "true"])
    devices.compile_lacks.cache_clear()
    assert end.value.code == 2
    assert "use --train.compile false" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()
