"""A short version of every fault that scripts/faults.py injects; the script itself takes many times as many."""

import subprocess
import sys
from pathlib import Path

import pytest

# Quick tests have the laws of the other parts in small: test_sources, test_checkpoint, test_cli, test_trainer, test_generate.
QUICK = ("hostile", "checkpoints")
SLOW = ("corpora", "images", "folder", "disk", "signals", "nonfinite", "alone", "samples", "resume")
PARTS = (*QUICK, *(pytest.param(part, marks=pytest.mark.slow) for part in SLOW))


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks /proc")
@pytest.mark.parametrize("part", PARTS)
def test_a_fault_is_survived(part: str) -> None:
    few = ["--runs_killed", "1", "--flips", "30", "--saves", "2", "--signals", "2", "--drawn", "16"]
    command = [sys.executable, "scripts/faults.py", "--only", f"[{part}]", *few]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=Path(__file__).parent.parent, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " of " in done.stdout
