"""docs/theory.md names functions and tests that exist."""

import re
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
THEORY = (HERE.parents[1] / "docs" / "theory.md").read_text(encoding="utf-8")
FUNCTIONS = sorted(set(re.findall(r"`(\w+)\.([\w.]+)`", THEORY)))
TESTS = sorted(set(re.findall(r"`(test_\w+\.py)::(\w+)`", THEORY)))


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
def test_named_function_exists(module, name):
    assert callable(attrgetter(name)(import_module(f"textdiff.diffusion.{module}")))


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_named_test_exists(file, name):
    assert f"\ndef {name}(" in (HERE / file).read_text(encoding="utf-8")


def test_every_claim_names_functions_and_tests():
    claims = re.findall(r"^- (.*?)(?=\n\n|\n\*\*|\n##)", THEORY, re.S | re.M)
    assert len(claims) > 15
    for claim in claims:
        functions, _, tests = claim.partition(":")
        assert "`" in functions, claim
        assert "::test_" in tests, claim
