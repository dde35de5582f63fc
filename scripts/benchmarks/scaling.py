"""Speed and memory of training by sequence length, batch, width and number of processes.

Every point is trained in processes of its own, one thread each (benchmarks/scaling_point.py), and
is compared with the arithmetic of benchmarks/costs.py. Two rates are measured at one point each:
the FLOP/s of matrix products, and the bytes per second of the Markov prior.
"""

import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.costs import Costs
from benchmarks.scaling_point import Measured, Point, measure
from tqdm import tqdm

from textdiff.cli.parser import fail
from textdiff.device import machine_name, own_device
from textdiff.table import table_lines

BASE = Point()
PLAIN = replace(BASE, prior="unigram")
TOKENS = BASE.tokens
SWEEPS: dict[str, list[Point]] = {
    "length": [
        replace(BASE, length=n, batch=max(1, TOKENS // n)) for n in (64, 128, 256, 512, 1024, 2048)
    ],
    "batch": [replace(BASE, batch=n) for n in (1, 4, 16, 64)],
    "width": [replace(BASE, width=n) for n in (64, 128, 256)],
    "processes": [BASE, replace(BASE, processes=2)],
}
OTHERS = [
    PLAIN,
    replace(PLAIN, length=1024, batch=1),
    replace(PLAIN, vocab=8192),
    replace(BASE, vocab=8192),
    replace(BASE, self_cond=1.0),
]
LABELS = {
    "length": f"tokens per sentence ({TOKENS:,} tokens per step)",
    "batch": "sentences per step (of 64 tokens)",
    "width": "width",
    "processes": "processes (one core each)",
}
Row = dict[str, Any]


class Rates(NamedTuple):
    """Rates of this machine, from two measured points.

    Args:
        flops: FLOP/s of a training step without Markov prior.
        prior: Bytes per second of its recursions.
    """

    flops: float
    prior: float


def scaling(seconds: float = 1.0, out: str = "runs/scaling") -> None:
    """Measure speed and memory of training by length, batch, width and processes.

    Args:
        seconds: Time of the measured steps of each point; at least three steps are measured.
        out: Folder for scaling.json and scaling.png.
    """
    if importlib.util.find_spec("matplotlib") is None:
        fail("the figure needs matplotlib: pip install 'textdiff[evaluate]'")
    if seconds <= 0:
        fail(f"--seconds must be positive, got {seconds:g}")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    points = list(dict.fromkeys([*OTHERS, *(point for ps in SWEEPS.values() for point in ps)]))
    found = {point: run_point(point, seconds) for point in tqdm(points, unit="point")}
    rates = rates_of(found)
    rows = {name_of(point): row(point, measured, rates) for point, measured in found.items()}
    shown = {point: rows[name_of(point)] for point in found}
    machine = machine_name(own_device())
    print(f"{machine}, one thread per process")
    print(f"rates: {rates.flops / 1e9:.1f} GFLOP/s, prior {rates.prior / 1e9:.2f} GB/s")
    for start in range(0, len(rows), 5):
        print(*table_lines(dict([*rows.items()][start : start + 5])), "", sep="\n")
    results = {"machine": machine, "rates": rates._asdict(), "points": rows}
    (folder / "scaling.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw(shown, folder / "scaling.png")
    print(f"written to {folder / 'scaling.json'} and {folder / 'scaling.png'}")


def run_point(point: Point, seconds: float) -> Measured:
    """Measures a point in new processes."""
    return launched(point, seconds) if point.processes > 1 else forked(point, seconds)


def forked(point: Point, seconds: float) -> Measured:
    """Measures a point in a new process, forked where possible from one that imported torch."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context: Any = get_context("spawn" if os.name == "nt" else "forkserver")
    if os.name != "nt":
        context.set_forkserver_preload(["__main__", "benchmarks.scaling_point"])
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(measure, point, seconds).result()


def launched(point: Point, seconds: float) -> Measured:
    """Measures a point on several processes."""
    program, root = Path(__file__).with_name("scaling_point.py"), Path(__file__).parents[2]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    given = json.dumps({"point": asdict(point), "seconds": seconds})
    paths = os.pathsep.join([str(root), str(root / "scripts")])
    done = subprocess.run(
        [sys.executable, *launcher, str(point.processes), "--", str(program), given],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        fail(f"the point {name_of(point)} failed: {done.stderr.strip()[-300:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def rates_of(found: dict[Point, Measured]) -> Rates:
    """Rates at the base point, without and with the Markov prior."""
    flops = flops_per_step(PLAIN) / found[PLAIN].seconds
    prior_seconds = max(1e-9, found[BASE].seconds - flops_per_step(BASE) / flops)
    return Rates(flops, Costs(BASE.config).prior_bytes(BASE.length, BASE.batch) / prior_seconds)


def flops_per_step(point: Point) -> float:
    """Predicted FLOPs of a step on each process: those of the tokens, and those of Muon."""
    costs = Costs(point.config)
    return costs.flops(point.length) * point.tokens + costs.muon_flops("float32")


def predict(point: Point, rates: Rates, exchange: float) -> tuple[float, float]:
    """Predicted seconds of a step, and megabytes of each process."""
    costs = Costs(point.config)
    prior = costs.prior_bytes(point.length, point.batch) / rates.prior
    seconds = flops_per_step(point) / rates.flops + prior + exchange
    buffers = 4 * costs.weights[0] * (point.processes > 1)  # of the exchange
    memory = costs.state_bytes + costs.activation_bytes(point.length, point.batch) + buffers
    return seconds, memory / 1e6


def row(point: Point, measured: Measured, rates: Rates) -> Row:
    """Measured figures of a point, and predicted ones divided by them."""
    seconds, megabytes = predict(point, rates, measured.exchange_seconds)
    tokens = point.tokens * point.processes
    return {
        "tokens/s": tokens / measured.seconds,
        "seconds per step": measured.seconds,
        "megabytes": measured.megabytes,
        "exchange, seconds": measured.exchange_seconds,
        "FLOPs, ratio": flops_per_step(point) / measured.flops,
        "seconds, ratio": seconds / measured.seconds,
        "megabytes, ratio": megabytes / measured.megabytes,
    }


def name_of(point: Point) -> str:
    """What a point changes of the base point."""
    changed = {k: v for k, v in asdict(point).items() if v != getattr(BASE, k)}
    return " ".join(v if k == "prior" else f"{k} {v:g}" for k, v in changed.items()) or "base"


def draw(rows: dict[Point, Row], path: Path) -> None:
    """Draws speed and memory of every sweep, measured and predicted."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(SWEEPS), figsize=(13, 6), squeeze=False)
    for column, (name, points) in zip(axes.T, SWEEPS.items(), strict=True):
        x = [getattr(point, name) for point in points]
        for ax, key, power in zip(column, ("tokens/s", "megabytes"), (-1, 1), strict=True):
            measured = [rows[point][key] for point in points]
            ratio = "seconds, ratio" if power < 0 else "megabytes, ratio"
            predicted = [rows[point][key] * rows[point][ratio] ** power for point in points]
            ax.plot(x, measured, "o-", label="measured")
            ax.plot(x, predicted, "--", label="arithmetic")
            ax.set_xscale("log", base=2)
            ax.set_ylim(0, 1.15 * max(*measured, *predicted))
            ax.set_xticks(x, [str(value) for value in x])
            ax.set_xlabel(LABELS[name])
            ax.set_ylabel(key if power < 0 else "peak megabytes of a process")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
