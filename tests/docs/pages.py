"""Reading of the documentation's Markdown: pages, code blocks, links and commands."""

import json
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LESSON = ROOT / "docs" / "lesson.ipynb"

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)")
SCRIPT = re.compile(r"(?:.*/)?scripts/(.+)\.py")


def read(page: Path) -> str:
    """Text of a page, or of the text cells of a notebook."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a language, in order."""
    return [code for _, found, code in FENCE.findall(read(page)) if found == language]


def links(page: Path) -> list[str]:
    """Targets of the links and pictures of a page that point into the repository."""
    targets = LINK.findall(FENCE.sub("", read(page)))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", read(page)), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def commands(page: Path) -> list[list[str]]:
    """Commands of `textdiff` and of the scripts in the shell blocks, split into words.

    The first word is `textdiff`, or the name of a script such as `benchmarks/memory`.
    """
    found = []
    for language in ("", "sh", "bash", "shell", "console"):
        for block in blocks(page, language):
            for line in block.replace("\\\n", " ").splitlines():
                if words := _command(line.removeprefix("$ ")):
                    found.append(words)
    return found


def _command(line: str) -> list[str] | None:
    """The words of a line from `textdiff` or the script on; None for other lines."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # prose or samples with an apostrophe
        return None
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if ">" in words:
        words = words[: words.index(">")]
    if not words or words[0] not in ("textdiff", "python", "accelerate", "torchrun"):
        return None
    if words[0] == "textdiff":
        return words
    for position, word in enumerate(words):
        if script := SCRIPT.fullmatch(word):
            return [script[1], *words[position + 1 :]]
    return None
