# make demo | test | test-slow | lint | clean; everything runs in .venv, made on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

MODEL ?= embedded
BITS ?= w8a8,w4a8
OUTPUT_DIR ?= runs/demo
TEST_PROCESSES ?= auto
PYTEST_ARGS ?=

.PHONY: demo test test-slow lint clean

demo: $(STAMP)
	$(BIN)/python tools/quantize.py --model=$(MODEL) --bits=$(BITS) \
		--output_dir=$(OUTPUT_DIR) --overwrite

test: $(STAMP)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m "not slow" $(PYTEST_ARGS)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m slow $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build runs *.egg-info .pytest_cache .ruff_cache .mypy_cache

# The stamp is written last: an interrupted installation starts over.
$(STAMP): requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --no-deps -e .
	touch $@

.venv: $(STAMP)
