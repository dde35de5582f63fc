# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# One process for each logical core; to debug, call $(BIN)/pytest alone.
PYTEST := $(BIN)/pytest -n logical --maxprocesses 8 --dist worksteal

.PHONY: demo test test-slow clean

demo: .venv/installed  ## train on the built-in grammar, print sentences, a rewrite and an infill, write runs/demo/report.json
	$(BIN)/python scripts/demo.py

test: .venv/installed-for-tests  ## lint, types, all tests but those marked slow (pyproject.toml leaves these out)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

test-slow: .venv/installed-for-tests  ## the tests marked slow, minutes each: injected faults, memory, time to quality
	$(PYTEST) -m slow

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-for-tests: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf .venv runs report
