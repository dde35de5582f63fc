"""Standard output and standard error of a command when writing to them fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from textdiff.cli.parser import Command, run_command_line
from textdiff.cli.streams import TolerantStream

PROGRAM = """
from textdiff.cli.parser import Command, run_command_line

def write(options):
    for number in range(100_000):
        print("line", number)

command = Command(lambda parser: None, write)
run_command_line({"write": command}, [], prog="write", description="")
"""


def run_failing(error: BaseException) -> None:
    def fail(options: object) -> None:
        print("written before")
        raise error

    command = Command(lambda parser: None, fail)
    run_command_line({"fail": command}, [], prog="fail", description="")


def run_piped(redirection: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = f"('{sys.executable}' -c '{PROGRAM}'; echo $? >&2) {redirection}"
    settings = {"capture_output": True, "encoding": "utf-8", "env": os.environ | environment}
    return subprocess.run(line, shell=True, check=False, **settings)


@pytest.mark.parametrize("error", [PermissionError(13, "no", "file"), BrokenPipeError(32, "pipe")])
def test_other_errors_leave_standard_output_open(error, capfd):
    with pytest.raises(SystemExit) as exit_:
        run_failing(error)
    os.write(1, b"written after\n")
    captured = capfd.readouterr()
    assert (exit_.value.code, captured.out) == (2, "written before\nwritten after\n")
    assert captured.err.startswith("textdiff: error: ")


def test_keyboard_interrupt_exits_with_130(capfd):
    with pytest.raises(SystemExit) as exit_:
        run_failing(KeyboardInterrupt())
    captured = capfd.readouterr()
    assert (exit_.value.code, captured.out, captured.err) == (130, "written before\n", "")


@pytest.mark.skipif(os.name == "nt", reason="pipes are closed in another way")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_closed_pipe_is_no_error(unbuffered):
    done = run_piped("| head -n 1", PYTHONUNBUFFERED=unbuffered)
    assert (done.stdout, done.stderr) == ("line 0\n", "0\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_full_standard_output_is_one_error():
    done = run_piped("> /dev/full")
    assert done.stderr == "textdiff: error: [Errno 28] No space left on device\n2\n"


class Broken:
    """A stream in memory without a file descriptor, whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_stream_without_file_descriptor_may_break():
    assert TolerantStream(Broken()).write("text") == 4
