"""Faults of a run: killed, told to stop, out of disk, its checkpoints damaged."""

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from injected.harness import Kind, emptied, ended, fingerprint, forked, killed_in_between, run_to_the_end, until

from textdiff import checkpoint

Result = tuple[str, int, int]  # what, how often it held, of how many


def exact_resume(kind: Kind, folder: Path, repeats: int, kills: int = 3) -> Iterator[Result]:
    """Killed at random moments and started again until it is done, a run ends byte-identical to one that was never interrupted."""
    whole = kind.at(folder / f"whole-{kind.name}")
    began = time.monotonic()
    run_to_the_end(whole)
    longest, expected, dice = time.monotonic() - began, fingerprint(Path(whole.config.run)), random.Random(0)
    same, deaths, in_saves = 0, 0, 0
    for _ in range(repeats):
        with emptied(folder / "killed") as home:
            saving: list[bool] = []
            while len(saving) < kills:
                where = killed_in_between(kind.at(home), dice, longest)
                if where is not None:
                    saving.append(where)
                    continue
                longest *= 0.8  # it was quicker than the first one, on a machine that was busy then
                if len(saving) >= 2:
                    break
                shutil.rmtree(home)
                home.mkdir()
                saving.clear()
            deaths, in_saves = deaths + len(saving), in_saves + sum(saving)
            run_to_the_end(kind.at(home))
            same += fingerprint(home) == expected
    yield f"{kind.name}: killed {deaths} times, {in_saves} inside a save, and resumed: byte-identical", same, repeats
    yield "  killed at least twice a run, three in ten inside a save", int(deaths >= 2 * repeats and in_saves >= 0.3 * deaths), 1


def damaged_checkpoints(kind: Kind, folder: Path, flips: int) -> Iterator[Result]:
    """Truncated or with a bit flipped, no checkpoint is loaded; the one before is."""
    run_to_the_end(kind.at(folder / "sound"))
    state = folder / "sound" / "state"
    older, newer = sorted(state.glob("step-*"))[-2:]
    dice, found, quick, tried = random.Random(0), 0, 0, 0
    files = [path for path in newer.iterdir() if path.stat().st_size]
    for path in files:
        content = path.read_bytes()
        for share in (0, 0.01, 0.25, 0.5, 0.75, 0.99):
            path.write_bytes(content[: int(len(content) * share)])
            began = time.monotonic()
            saved = checkpoint.newest(state)
            found += saved is not None and saved.facts["step"] == int(older.name.removeprefix("step-"))
            quick += time.monotonic() - began < 5
            tried += 1
        path.write_bytes(content)
    yield "a file of the newest checkpoint truncated: detected, the one before used", found, tried
    yield "  in under 5 seconds", quick, tried
    detected = 0
    for _ in range(flips):
        path = dice.choice(files)
        content = bytearray(path.read_bytes())
        place, bit = dice.randrange(len(content)), dice.randrange(8)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        detected += checkpoint.damage(newer) is not None
        content[place] ^= 1 << bit
        path.write_bytes(content)
    yield "a bit flipped: detected", detected, flips


def failing_saves(kind: Kind, folder: Path, repeats: int) -> Iterator[Result]:
    """A file-size limit that any file of a run may hit: the run says so and ends with an error, and once there is room it goes on to its end."""
    sound, dice = 0, random.Random(0)
    run_to_the_end(kind.at(folder / f"sizes-{kind.name}", steps=4))
    sizes = sorted({path.stat().st_size for path in (folder / f"sizes-{kind.name}").rglob("*") if path.is_file() and path.stat().st_size > 800})
    for number in range(repeats):
        with emptied(folder / "full") as home:
            run_to_the_end(kind.at(home, steps=4))
            limit, log = dice.choice(sizes) - 1, folder / f"full-{number}.log"
            log.unlink(missing_ok=True)

            def limited(home: Path = home, limit: int = limit) -> None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                kind.train(kind.at(home, steps=8, save_every=4).config, resume=True)

            code = ended(forked(limited, log))
            saved = checkpoint.newest(home / "state")
            told = log.read_text(errors="replace", encoding="utf-8")
            said = code == 2 and "could not be written" in told and "Traceback" not in told
            whole = saved is not None and saved.facts["step"] in (4, 8)
            again = ended(forked(lambda home=home: kind.train(kind.at(home, steps=8).config, resume=True)))
            sound += said and whole and again == 0
            log.unlink()
    yield f"{kind.name}: disk full at any file: an error, the checkpoint before is whole, and with room it goes on", sound, repeats


def signals(kind: Kind, folder: Path, repeats: int) -> Iterator[Result]:
    """SIGTERM or SIGINT: a checkpoint that is whole, within 10 seconds."""
    obeyed, dice = 0, random.Random(0)
    for _ in range(repeats):
        with emptied(folder / "told") as home:
            run = kind.at(home, steps=100_000, save_every=100_000, valid_every=7)  # so that many are told during a validation
            child = forked(lambda run=run: run.train(run.config))
            until((home / "metrics.jsonl").exists, child)
            time.sleep(dice.uniform(0, 0.3))
            began = time.monotonic()
            os.kill(child, dice.choice([signal.SIGTERM, signal.SIGINT]))
            code = ended(child, within=30)
            saved = checkpoint.newest(home / "state")
            obeyed += code == 130 and saved is not None and time.monotonic() - began < 10
    yield f"{kind.name}: told to stop: a whole checkpoint within 10 seconds", obeyed, repeats


def two_runs(kind: Kind, folder: Path) -> Iterator[Result]:
    """The second run in a folder is refused, and the first goes on."""
    home = folder / f"shared-{kind.name}"
    shutil.rmtree(home, ignore_errors=True)
    first = kind.at(home, steps=60)
    child = forked(lambda: first.train(first.config))
    until((home / "metrics.jsonl").exists, child)
    refused = ended(forked(lambda: first.train(first.config, resume=True))) == 2
    yield f"{kind.name}: a second run in the folder refused, the first unharmed", int(refused and ended(child) == 0), 1
