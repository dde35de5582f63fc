"""LaTeX as MathML, which browsers show without a script: for the report and for MkDocs.

`mkdocs.yml` names this file as a hook. There, pymdownx.arithmatex marks the formulas of a page.
"""

import re
from html import escape, unescape

from latex2mathml.converter import convert

NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'  # HTML does not need it
OPERATOR = re.compile("(<mi>(?:log|exp)</mi>)(?=<m(?:i|sub|sup|over|frac)>)")  # needs a space
MARKED = re.compile(
    r'<(?:span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</(?:span|div)>', re.DOTALL
)


def mathml(latex: str, display: str = "inline") -> str:
    """Converts a formula, in a line of text (inline) or on a line of its own (block).

    Raises:
        ValueError: The library does not know a command of the formula.
    """
    converted = convert(latex, display=display).replace(NAMESPACE, "")
    if "\\" in converted or "&<" in converted:
        raise ValueError(f"a command is unknown or misplaced in the formula {latex}")
    return OPERATOR.sub(r'\1<mspace width="0.17em"/>', converted)


def prose(text: str) -> str:
    """Converts a paragraph with $formulas$ and `code` to HTML."""
    parts = re.split(r"(\$[^$]+\$|`[^`]+`)", text)
    return "".join(_part(part) for part in parts)


def on_page_content(html: str, **_: object) -> str:
    """Converts the formulas of a page that MkDocs builds."""
    return MARKED.sub(_marked, html)


def _part(part: str) -> str:
    if part.startswith("$"):
        return mathml(part.strip("$"))
    if part.startswith("`"):
        return f"<code>{escape(part.strip('`'))}</code>"
    return escape(part)


def _marked(match: re.Match[str]) -> str:
    latex = unescape(match[2])
    if match[1] == "(":
        return mathml(latex)
    return f'<div class="formula">{mathml(latex, "block")}</div>'
