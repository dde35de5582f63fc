# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# One process for each logical core; to debug, call $(BIN)/pytest alone.
PYTEST := $(BIN)/pytest -n logical --maxprocesses 8 --dist worksteal

.PHONY: demo test test-slow gpu clean

demo: .venv/installed  ## train on the built-in grammar, print sentences, a rewrite and an infill, write runs/demo/report.json
	$(BIN)/python scripts/demo.py

test: .venv/installed-for-tests  ## lint, types, all tests but those marked slow (pyproject.toml leaves these out)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

test-slow: .venv/installed-for-tests  ## the tests marked slow, minutes each: injected faults, memory, time to quality
	$(PYTEST) -m slow

# What to run first where there is a GPU: checks, tests, speed, and ten minutes of text and of images. E2E is downloaded,
# or `make gpu E2E="--data.train PATH --data.field text" MNIST="--data.train PATH"`.
gpu: .venv/installed-for-tests
	$(BIN)/textdiff doctor
	$(PYTEST)
	$(BIN)/python scripts/benchmark.py text --gpu
	$(BIN)/python scripts/benchmark.py image --gpu
	$(BIN)/textdiff train --config configs/text_e2e.yaml --run runs/gpu-e2e --overwrite --train.minutes 10 --model.width 512 --model.depth 12 --model.heads 8 $(E2E)
	$(BIN)/textdiff evaluate runs/gpu-e2e --steps [8,32] --sampler dpm_solver --baselines [ar,bigram]
	$(BIN)/python scripts/train_image.py --config configs/image_mnist.yaml --run runs/gpu-mnist --overwrite --train.minutes 10 $(MNIST)
	$(BIN)/python scripts/evaluate_image.py runs/gpu-mnist --steps [20,50]
	-timeout -s KILL 90 $(BIN)/textdiff train --run runs/gpu-killed --overwrite --train.save_every 100
	$(BIN)/textdiff train --run runs/gpu-killed --resume

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-for-tests: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf .venv runs report
