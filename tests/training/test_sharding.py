"""Laws of sharded training: on two processes it equals unsharded training and one process."""

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

from textdiff.config import UserError
from textdiff.text import grammar
from textdiff.text.config import TextConfig
from textdiff.text.hub import load_model
from textdiff.training import checkpoint, loop
from textdiff.training.run_dir import open_run_dir

every_kind = pytest.mark.parametrize("kind", KINDS)
every_interrupted = pytest.mark.parametrize("kind", ["muon", "images"])
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def launched(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command on two processes with one thread each, so that sums are the same."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    options = {"cwd": Path(__file__).parents[2], "env": env}
    line = [*LAUNCH, "--", *command]
    return subprocess.run(
        line, **options, check=False, capture_output=True, text=True, encoding="utf-8", timeout=240
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of sharded_runs.py. The first step of `moved` is taken on one process."""
    home = tmp_path_factory.mktemp("sharded")
    (home / "text.txt").write_text("\n".join(grammar.corpus(300, seed=0)), encoding="utf-8")
    AcceleratorState._reset_state(True)
    for kind in KINDS:
        trained(kind, home / f"{kind}-moved", Accelerator(cpu=True), False, n=1)
    AcceleratorState._reset_state(True)
    done = launched("tests/training/sharded_runs.py", str(home))
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(scope="module")
def facts(folder: Path) -> list[dict[str, Any]]:
    """Results of each process, by run."""
    return [
        json.loads((folder / f"facts-{rank}.json").read_text(encoding="utf-8")) for rank in range(2)
    ]


@pytest.fixture
def single_process(accelerator: Accelerator, folder: Path) -> Callable[[str], Path]:
    """`single_process(kind)`: the folder of the same run on one process."""

    def run(kind: str) -> Path:
        if not (folder / f"{kind}-one").exists():
            trained(kind, folder / f"{kind}-one", accelerator, shard=False)
        return folder / f"{kind}-one"

    return run


def assert_same_checkpoints(one: Path, other: Path, relative: float) -> None:
    """Compares each group of tensors by the relative error in the Euclidean norm."""
    first, second = (checkpoint.load_latest(path / "state") for path in (one, other))
    assert first.facts == second.facts
    assert first.tensors.keys() == second.tensors.keys()
    for part, tensors in second.tensors.items():
        assert tensors.keys() == first.tensors[part].keys()
        both = first.tensors[part], tensors
        a, b = (torch.cat([each[name].flatten().double() for name in tensors]) for each in both)
        assert (a - b).norm() <= relative * b.norm(), part


def contents(run: Path) -> dict[str, bytes]:
    """Files of a run's newest checkpoint and of its model, if there is one.

    The model card is left out, for it has the name of the run and its minutes.
    """
    last = checkpoint.list_checkpoints(run / "state")[-1]
    files = [path for where in (last, run / "model") if where.exists() for path in where.iterdir()]
    kept = [path for path in files if path.name != "README.md"]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in kept}


# --- equality


@every_kind
def test_sharded_training_equals_unsharded_training(folder, kind):
    assert_same_checkpoints(folder / f"{kind}-sharded", folder / f"{kind}-two", 1e-6)


@every_kind
def test_sharded_training_equals_that_of_one_process(folder, single_process, kind):
    assert_same_checkpoints(folder / f"{kind}-sharded", single_process(kind), 1e-6)


@every_kind
def test_sharded_losses_equal_unsharded_losses(facts, kind):
    for of_process in facts:
        two, sharded = of_process[f"{kind}-two"], of_process[f"{kind}-sharded"]
        assert len(two["steps"]) == STEPS
        assert sharded["valid"] == pytest.approx(two["valid"], rel=1e-5)
        for a, b in zip(sharded["steps"], two["steps"], strict=True):
            assert a == pytest.approx(b, rel=1e-5)


def test_no_gradient_is_lost_under_autocast(facts):
    """Self-conditioning first calls each block without gradients (see sharding.shard)."""
    two, sharded = facts[0]["bf16-two"], facts[0]["bf16-sharded"]
    for a, b in zip(sharded["steps"], two["steps"], strict=True):
        assert a == pytest.approx(b, rel=2e-3)


# --- resuming


@every_kind
def test_run_resumes_on_one_two_and_one_process(
    folder, single_process, accelerator, tmp_path, kind
):
    home = Path(shutil.copytree(folder / f"{kind}-moved", tmp_path / "moved"))
    assert len(checkpoint.list_checkpoints(home / "state")) == 2
    trained(kind, home, accelerator, shard=False)
    assert_same_checkpoints(home, single_process(kind), 1e-6)


@every_interrupted
def test_repeated_sharded_steps_give_the_same_bytes(folder, kind):
    assert contents(folder / f"{kind}-interrupted") == contents(folder / f"{kind}-sharded")


@pytest.mark.slow
def test_killed_sharded_run_ends_with_same_bytes(folder):
    done = launched("tests/training/sharded_runs.py", str(folder), "killed")
    assert "SIGKILL" in done.stderr, done.stderr
    home, whole = folder / "killed", contents(folder / "whole")
    assert checkpoint.list_checkpoints(home / "state")[-1].name < "step-00000006"
    done = launched("scripts/train_text.py", *command(folder, "killed")[1:], "--resume")
    assert done.returncode == 0, done.stderr
    assert "resuming from step" in done.stderr
    assert contents(home) == whole


# --- memory and full models


@every_interrupted
def test_each_process_holds_half(facts, kind):
    """Scalars are on both processes, and one process has two of three rows."""
    sizes = [of_process[f"{kind}-interrupted"]["bytes"] for of_process in facts]
    (_, unsharded), parts = sizes[0], [part for part, _ in sizes]
    assert sum(parts) <= 1.05 * unsharded
    assert max(parts) <= 0.55 * unsharded


@every_interrupted
def test_averaged_model_is_complete_on_main_process(folder, facts, kind):
    assert [each[f"{kind}-interrupted"]["averaged on"] for each in facts] == [["cpu"], ["meta"]]
    model = torch.load(folder / f"{kind}-interrupted" / "averaged.pt")
    saved = load_file(folder / f"{kind}-interrupted/state/step-00000002/ema.safetensors")
    assert_close({name: model[name] for name in saved}, saved, atol=0, rtol=0)


def test_model_of_a_sharded_run_is_its_average(folder):
    saved = checkpoint.load_latest(folder / "whole" / "state").tensors["ema"]
    model = load_model(str(folder / "whole"))[0].state_dict()
    assert_close({name: model[name] for name in saved}, saved, atol=0, rtol=0)


@every_interrupted
def test_infinite_weights_are_refused_on_all_processes(facts, kind):
    for of_process in facts:
        assert "step 3: the weights are not finite" in of_process[f"{kind}-interrupted"]["refused"]


# --- options


@pytest.fixture
def config(accelerator: Accelerator, tmp_path: Path) -> TextConfig:
    return TextConfig(run=str(tmp_path / "run"))


def test_fsdp_of_accelerate_means_sharding(config, monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with caplog.at_level("INFO", "textdiff"):
        accelerator, config = loop.new_accelerator(config, open_run_dir(config))
    assert config.train.shard
    assert not hasattr(accelerator.state, "fsdp_plugin")
    assert "this means --train.shard true" in caplog.text
    assert "no effect on a single process" in caplog.text


@pytest.mark.parametrize("name", ["DeepSpeed", "Megatron_LM", "parallelism_config"])
def test_other_model_parallelism_is_refused(config, monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name.upper()}", "true")
    with pytest.raises(UserError, match=f"{name} .*--train.shard true"):
        loop.new_accelerator(config, open_run_dir(config))


def test_sharding_has_no_effect_on_one_process(single_process, accelerator, tmp_path):
    trained("muon", tmp_path, accelerator, shard=True)
    assert contents(tmp_path) == contents(single_process("muon"))
