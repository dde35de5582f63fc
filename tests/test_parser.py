"""Standard output and standard error of a command, when something is wrong with them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from textdiff.parser import TolerantStream, command_line

PROGRAM = """
import sys
from textdiff.parser import command_line

def write(options):
    for number in range(100_000):
        print("line", number)

command_line({"write": (lambda parser: None, write)}, [], prog="write", description="")
"""


def fails(error: OSError) -> None:
    def work(options: object) -> None:
        print("written before")
        raise error

    command_line({"work": (lambda parser: None, work)}, [], prog="work", description="")


@pytest.mark.parametrize("error", [PermissionError(13, "no", "file"), BrokenPipeError(32, "pipe")])
def test_an_error_elsewhere_leaves_standard_output_alone(error, capfd):
    with pytest.raises(SystemExit) as left:
        fails(error)
    os.write(1, b"written after\n")
    printed = capfd.readouterr()
    assert (left.value.code, printed.out) == (2, "written before\nwritten after\n")
    assert printed.err.startswith("textdiff: error: ")


def piped(redirection: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = f"('{sys.executable}' -c '{PROGRAM}'; echo $? >&2) {redirection}"
    surroundings = {**os.environ, **environment}
    return subprocess.run(line, shell=True, capture_output=True, encoding="utf-8", env=surroundings, check=False)


@pytest.mark.skipif(os.name == "nt", reason="pipes are closed in another way")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_enough_is_no_error(unbuffered):
    done = piped("| head -n 1", PYTHONUNBUFFERED=unbuffered)
    assert (done.stdout, done.stderr) == ("line 0\n", "0\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_results_that_cannot_be_written_are_one_error(tmp_path):
    done = piped("> /dev/full")
    assert done.stderr == "textdiff: error: [Errno 28] No space left on device\n2\n"


class Broken:
    """A stream in memory, without file descriptor, whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_stream_without_file_descriptor_may_lose_its_reader():
    assert TolerantStream(Broken()).write("text") == 4
