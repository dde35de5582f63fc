"""Laws of sharded training on two processes: the same as unsharded, and as one process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from sharded_runs import KINDS, STEPS, command, trained
from torch.testing import assert_close

from textdiff import checkpoint, grammar, loop
from textdiff.config import InputError, TextRun
from textdiff.generate import load

every_kind = pytest.mark.parametrize("kind", KINDS)
every_interrupted = pytest.mark.parametrize("kind", ["muon", "images"])
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def launched(*command: str) -> subprocess.CompletedProcess[str]:
    """On two processes, of one thread each, as here: other sums would be other numbers."""
    options = {"cwd": Path(__file__).parents[1], "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    line = [*LAUNCH, "--", *command]
    return subprocess.run(line, **options, check=False, capture_output=True, text=True, encoding="utf-8", timeout=240)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What sharded_runs.py leaves, with the first step of `moved` taken on one process."""
    home = tmp_path_factory.mktemp("sharded")
    (home / "text.txt").write_text("\n".join(grammar.corpus(300, seed=0)), encoding="utf-8")
    AcceleratorState._reset_state(True)
    for kind in KINDS:
        trained(kind, home / f"{kind}-moved", Accelerator(cpu=True), False, n=1)
    AcceleratorState._reset_state(True)
    done = launched("tests/sharded_runs.py", str(home))
    assert (home / "facts-1.json").exists(), done.stderr
    assert "SIGKILL" in done.stderr, done.stderr
    return home


@pytest.fixture(scope="module")
def facts(folder: Path) -> list[dict[str, Any]]:
    """What each of the processes saw, by run."""
    return [json.loads((folder / f"facts-{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


@pytest.fixture
def alone(accelerator: Accelerator, folder: Path) -> Callable[[str], Path]:
    """`alone(kind)`: the folder of the same run on one process."""

    def run(kind: str) -> Path:
        if not (folder / f"{kind}-one").exists():
            trained(kind, folder / f"{kind}-one", accelerator, shard=False)
        return folder / f"{kind}-one"

    return run


def assert_same_checkpoints(one: Path, other: Path, relative: float) -> None:
    """By the distance of each file's numbers from the other's, in units of the other's norm."""
    ours, theirs = (checkpoint.newest(path / "state") for path in (one, other))
    assert ours.facts == theirs.facts
    assert ours.tensors.keys() == theirs.tensors.keys()
    for part, tensors in theirs.tensors.items():
        assert tensors.keys() == ours.tensors[part].keys()
        both = ours.tensors[part], tensors
        a, b = (torch.cat([each[name].flatten().double() for name in tensors]) for each in both)
        assert (a - b).norm() <= relative * b.norm(), part


def contents(run: Path) -> dict[str, bytes]:
    """The files of a run's newest checkpoint and, if there is one, of its model."""
    last = checkpoint.steps(run / "state")[-1]
    files = [path for where in (last, run / "model") if where.exists() for path in where.iterdir()]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}


# --- equal


@every_kind
def test_sharded_training_is_unsharded_training(folder, kind):
    assert_same_checkpoints(folder / f"{kind}-sharded", folder / f"{kind}-two", 1e-6)


@every_kind
def test_sharded_training_is_that_of_one_process(folder, alone, kind):
    assert_same_checkpoints(folder / f"{kind}-sharded", alone(kind), 1e-6)


@every_kind
def test_losses_norms_and_validation_are_those_of_unsharded_training(facts, kind):
    for seen in facts:
        two, sharded = seen[f"{kind}-two"], seen[f"{kind}-sharded"]
        assert len(two["steps"]) == STEPS
        assert sharded["valid"] == pytest.approx(two["valid"], rel=1e-5)
        for a, b in zip(sharded["steps"], two["steps"], strict=True):
            assert a == pytest.approx(b, rel=1e-5)


def test_no_gradient_is_lost_under_autocast(facts):
    """Self-conditioning calls each block first without gradients: see sharding.shard."""
    two, sharded = facts[0]["bf16-two"], facts[0]["bf16-sharded"]
    for a, b in zip(sharded["steps"], two["steps"], strict=True):
        assert a == pytest.approx(b, rel=2e-3)


# --- going on


@every_kind
def test_a_run_goes_on_on_one_two_sharded_and_one(folder, alone, accelerator, tmp_path, kind):
    home = Path(shutil.copytree(folder / f"{kind}-moved", tmp_path / "moved"))
    assert len(checkpoint.steps(home / "state")) == 2
    trained(kind, home, accelerator, shard=False)
    assert_same_checkpoints(home, alone(kind), 1e-6)


@every_interrupted
def test_sharded_steps_that_were_lost_are_taken_again_to_the_byte(folder, kind):
    assert contents(folder / f"{kind}-interrupted") == contents(folder / f"{kind}-sharded")


def test_a_sharded_run_that_was_killed_ends_with_the_same_bytes(folder):
    home, whole = folder / "killed", contents(folder / "whole")
    assert checkpoint.steps(home / "state")[-1].name < "step-00000006"
    done = launched("scripts/train_text.py", *command(folder, "killed")[1:], "--resume")
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stderr
    assert contents(home) == whole


# --- what is held and what is whole


@every_interrupted
def test_each_process_holds_half(facts, kind):
    """Scalars and steps are everywhere, and of three rows one process has two."""
    mine = [seen[f"{kind}-interrupted"]["bytes"] for seen in facts]
    assert sum(part for part, _ in mine) <= 1.05 * mine[0][1]
    assert max(part for part, _ in mine) <= 0.55 * mine[0][1]


@every_interrupted
def test_the_averaged_model_is_whole_on_the_main_process_alone(folder, facts, kind):
    assert [seen[f"{kind}-interrupted"]["averaged on"] for seen in facts] == [["cpu"], ["meta"]]
    model = torch.load(folder / f"{kind}-interrupted" / "averaged.pt")
    saved = load_file(folder / f"{kind}-interrupted/state/step-00000002/ema.safetensors")
    assert_close({name: model[name] for name in saved}, saved, atol=0, rtol=0)


def test_the_model_of_a_sharded_run_is_its_average(folder):
    saved = checkpoint.newest(folder / "whole" / "state").tensors["ema"]
    model = load(str(folder / "whole"))[0].state_dict()
    assert_close({name: model[name] for name in saved}, saved, atol=0, rtol=0)


@every_interrupted
def test_weights_that_are_infinite_on_one_process_are_refused_on_all(facts, kind):
    for seen in facts:
        assert "step 3: the weights are not finite" in seen[f"{kind}-interrupted"]["refused"]


# --- what users ask for


@pytest.fixture
def config(accelerator: Accelerator, tmp_path: Path) -> TextRun:
    return TextRun(run=str(tmp_path / "run"))


def test_accelerates_fsdp_is_taken_as_sharding(config, monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with caplog.at_level("INFO", "textdiff"):
        accelerator, config = loop.new_accelerator(config)
    assert config.train.shard
    assert not hasattr(accelerator.state, "fsdp_plugin")
    assert "taken as --train.shard true" in caplog.text
    assert "there is one process, which keeps everything whole" in caplog.text


@pytest.mark.parametrize("name", ["DeepSpeed", "Megatron_LM", "parallelism_config"])
def test_other_ways_to_divide_a_model_are_refused(config, monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name.upper()}", "true")
    with pytest.raises(InputError, match=f"{name} .*--train.shard true"):
        loop.new_accelerator(config)


def test_one_process_trains_as_usual(alone, accelerator, tmp_path):
    trained("muon", tmp_path, accelerator, shard=True)
    assert contents(tmp_path) == contents(alone("muon"))
