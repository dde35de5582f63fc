"""Laws of what is chosen for a machine: precision, threads, kernels."""

import logging
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from textdiff import device as devices
from textdiff.cli import main
from textdiff.device import best_precision, bf16_gain, choose_precision, emulation_factor, has_native_bf16, matmul_dtype

CPU = torch.device("cpu")
TINY = ["--model.width", "16", "--model.depth", "1", "--model.heads", "1", "--train.steps", "2", "--train.batch_size", "8"]


@pytest.fixture
def machine(monkeypatch):
    """`machine(native, gain)`: a CPU with or without bf16 instructions, and what they are worth."""

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


@pytest.mark.parametrize(("native", "gain", "expected"), [(True, 2.5, "bf16"), (True, 1.5, "no"), (True, 0.5, "no"), (False, 2.5, "no")])
def test_bf16_is_chosen_where_it_is_native_and_faster(machine, native, gain, expected):
    machine(native, gain)
    assert choose_precision("auto", CPU) == expected


@pytest.mark.parametrize(("native", "gain"), [(True, 2.5), (False, 0.01)])
def test_what_was_chosen_is_said_once_with_the_reason(machine, caplog, native, gain):
    machine(native, gain)
    with caplog.at_level(logging.INFO, "textdiff"):
        chosen = [choose_precision("auto", CPU) for _ in range(3)]
    (line,) = caplog.messages
    assert f"precision {chosen[0]} on " in line


def test_emulated_bf16_is_obeyed_with_one_warning_that_names_the_factor(machine, caplog):
    machine(native=False, gain=1 / 80)
    assert [choose_precision("bf16", CPU) for _ in range(2)] == ["bf16", "bf16"]
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "80 times as long as in float32" in line


@pytest.mark.parametrize("asked", ["bf16", "no"])
def test_an_explicit_choice_on_a_machine_that_can_is_silent(machine, caplog, asked):
    machine(native=True, gain=2.5)
    assert choose_precision(asked, CPU) == asked
    assert not caplog.messages


def test_the_race_is_short():
    best_precision.cache_clear()
    bf16_gain.cache_clear()
    assert devices.timed(lambda: best_precision(CPU), CPU) < 5.0


def test_without_an_accelerator_the_device_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert devices.own_device() == CPU


def test_each_process_has_an_accelerator_of_its_own(monkeypatch):
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


def test_a_gpu_without_native_bf16_computes_in_float32(monkeypatch):
    best_precision.cache_clear()
    has_native_bf16.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert best_precision(torch.device("cuda")).precision == "no"
    assert best_precision(torch.device("mps")).precision == "no"


def test_a_run_records_the_precision_chosen_and_a_resumed_one_keeps_it(tmp_path, monkeypatch):
    def recorded() -> str:
        return yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))["train"]["precision"]

    (tmp_path / "text.txt").write_text("the king sees the queen .\n" * 50, encoding="utf-8")
    monkeypatch.setattr("textdiff.loop.choose_precision", lambda asked, *_: "no" if asked == "auto" else asked)
    main(["train", "--run", str(tmp_path / "run"), "--data.train", str(tmp_path / "text.txt"), *TINY])
    assert recorded() == "no"
    monkeypatch.setattr("textdiff.loop.choose_precision", lambda asked, *_: "bf16" if asked == "auto" else asked)
    main(["train", "--run", str(tmp_path / "run"), "--resume", "--train.steps", "3", "--train.precision", "auto"])
    assert recorded() == "no"


THREADS = """
import torch
from textdiff.device import set_threads
torch.set_num_threads(1)
set_threads()
print(torch.get_num_threads())
"""


@pytest.mark.parametrize("launcher", ["ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"])
@pytest.mark.parametrize("chosen", [True, False])
def test_a_users_own_omp_num_threads_is_left_alone(tmp_path: Path, monkeypatch, chosen: bool, launcher: str):
    """Launchers set it to 1 in the processes they start, whether the user had set it or not."""
    (tmp_path / "script.py").write_text(THREADS, encoding="utf-8")
    code = f"import os, subprocess, sys; os.environ |= {{'OMP_NUM_THREADS': '1', {launcher!r}: 'no'}}; "
    code += f"sys.exit(subprocess.run([sys.executable, {str(tmp_path / 'script.py')!r}]).returncode)"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert int(done.stdout) == (1 if chosen else psutil.cpu_count(logical=False))


def test_matrices_are_not_multiplied_in_a_bf16_that_is_emulated(machine):
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        machine(native, gain=1.0)
        assert matmul_dtype("bf16", CPU) == dtype
        assert matmul_dtype("no", CPU) == torch.float32


def test_a_gpu_that_cannot_compile_does_not_by_default(monkeypatch):
    cuda = torch.device("cuda")
    for lacking in (None, "a C compiler"):
        monkeypatch.setattr(devices, "compile_lacks", lambda _, lacking=lacking: lacking)
        assert devices.compiles("auto", cuda) == (lacking is None)
        assert devices.compiles(True, cuda)
    assert not devices.compiles("auto", CPU)
