"""The options of every command in the documentation exist and are valid."""

import runpy
import sys
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser, capture_parser
from pages import LESSON, PAGES, ROOT, commands

from image.cli import COMMANDS as IMAGE_COMMANDS
from textdiff.cli.main import COMMANDS
from textdiff.cli.parser import build_parser, with_config_files

TEXT_SCRIPTS = {"train_text": "train", "sample_text": "sample"}
WITHOUT_OPTIONS = {"demo"}
PAGES_WITH_COMMANDS = [page for page in [*PAGES, LESSON] if commands(page)]


def parser_of(program: str) -> tuple[ArgumentParser, list[str]]:
    """The parser of a program, and the words to put before its arguments."""
    if program == "textdiff":
        return build_parser(COMMANDS, program, ""), []
    if program in TEXT_SCRIPTS:
        return build_parser(COMMANDS, program, ""), [TEXT_SCRIPTS[program]]
    kind = program.removesuffix("_image")
    if kind in IMAGE_COMMANDS:
        return build_parser({kind: IMAGE_COMMANDS[kind]}, program, ""), []
    path = str(ROOT / "scripts" / f"{program}.py")
    return capture_parser(lambda: runpy.run_path(path, run_name="__main__")), []


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: page.name)
def test_options_of_every_command_parse(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for program, *arguments in commands(page):
        if program in WITHOUT_OPTIONS:
            assert not arguments
            continue
        arguments = [word for word in arguments if word != "--help"]
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        parser, before = parser_of(program)
        parser.parse_args(
            with_config_files([*before, *arguments], "image" if "image" in program else "text")
        )


def test_documentation_has_commands() -> None:
    """The reader of commands finds them."""
    assert sum(len(commands(page)) for page in PAGES) > 40
