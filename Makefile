# On a new machine, `make demo` and `make test` install what they need.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# One process per logical core. For debugging, call $(BIN)/pytest directly.
PYTEST := $(BIN)/pytest -n logical --maxprocesses 8 --dist worksteal

.PHONY: demo page test test-slow test-browser docs gpu clean

# Trains on the built-in grammar, prints sentences, a rewrite and an infill, and writes
# runs/demo/report.json.
demo: .venv/installed
	$(BIN)/python scripts/demo.py

# A page in the browser on which text appears out of noise. Trains runs/demo if it is not there.
page: .venv/installed-for-page
	$(BIN)/textdiff demo

# Linter, types, and all tests that are not marked slow.
test: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

# The tests marked slow, which take minutes each: fault injection, memory, time to quality.
test-slow: .venv/installed-for-tests
	$(PYTEST) -m slow

# Every tab of the page in a browser. Needs a Chromium of the system, or its path in CHROMIUM.
test-browser: .venv/installed-for-browser
	$(BIN)/pytest -m browser tests/demo

# The documentation, in build/site. Broken links are errors.
docs: .venv/installed-for-docs
	$(BIN)/mkdocs build --strict --quiet

# The first thing to run on a machine with a GPU: checks, tests, speed, and ten minutes each of text
# and of images. E2E is downloaded. For local copies of the data:
# make gpu E2E="--data.train PATH --data.field text" MNIST="--data.train PATH"
TEN_MINUTES := --overwrite --train.minutes 10
gpu: .venv/installed-for-tests
	$(BIN)/textdiff doctor
	$(PYTEST)
	$(BIN)/python scripts/benchmark.py text --gpu
	$(BIN)/python scripts/benchmark.py image --gpu
	$(BIN)/textdiff train --config configs/text_e2e.yaml --run runs/gpu-e2e $(TEN_MINUTES) \
		--model.width 512 --model.depth 12 --model.heads 8 $(E2E)
	$(BIN)/textdiff evaluate runs/gpu-e2e --steps [8,32] --sampler dpm_solver \
		--baselines [ar,bigram]
	$(BIN)/python scripts/train_image.py --config configs/image_mnist.yaml --run runs/gpu-mnist \
		$(TEN_MINUTES) $(MNIST)
	$(BIN)/python scripts/evaluate_image.py runs/gpu-mnist --steps [20,50]
	-timeout -s KILL 90 $(BIN)/textdiff train --run runs/gpu-killed --overwrite \
		--train.save_every 100
	$(BIN)/textdiff train --run runs/gpu-killed --resume

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-for-tests: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

.venv/installed-for-page: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[demo]'
	touch $@

.venv/installed-for-browser: .venv/installed-for-tests
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[browser]'
	touch $@

.venv/installed-for-docs: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv build runs report
