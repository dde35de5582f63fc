"""A short version of every part of scripts/robustness.py, which by default has larger numbers."""

import subprocess
import sys
from pathlib import Path

import pytest

# Fast tests of the parts: test_sources, test_checkpoint, test_cli, test_trainer.
PARTS = (
    "hostile",
    "checkpoints",
    "corpora",
    "images",
    "folder",
    "disk",
    "signals",
    "nonfinite",
    "environment",
    "samples",
    "resume",
)
SIZES = {"runs_killed": 1, "flips": 30, "saves": 2, "signals": 2, "samples": 16}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")
@pytest.mark.parametrize("part", PARTS)
def test_every_claim_holds(part: str) -> None:
    sizes = [f"--{name}={size}" for name, size in SIZES.items()]
    done = subprocess.run(
        [sys.executable, "scripts/robustness.py", "--only", f"[{part}]", *sizes],
        capture_output=True,
        encoding="utf-8",
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " of " in done.stdout
