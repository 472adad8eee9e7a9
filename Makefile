# One command each: `make demo`, `make test`. Everything installs into .venv with plain pip; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The caller's cache, or the user's cache directory: both `make demo` and the slow tests read the model from there.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-shapes test-slow test-duckdb-1 check lint bench clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(STAMP)  ## create .venv and install the tested versions

# CPU builds of torch have the plain version number; on Linux pip would otherwise fetch gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_INDEX) -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup  ## the whole path on a real model, then the dashboard on http://127.0.0.1:8501
	$(BIN)/monosem demo $(ARGS)

test: setup  ## the tests: offline, on a tiny model, under three minutes
	$(BIN)/python -m pytest -q -n auto --dist loadscope $(ARGS)

test-shapes: setup  ## the tests of the mathematics, with the shapes and types of every call checked
	MONOSEM_CHECK_SHAPES=1 $(BIN)/python -m pytest -q -n auto --dist loadscope tests/sae tests/activations tests/autointerp/test_align.py tests/autointerp/test_matching_given.py tests/autointerp/test_index_maths.py $(ARGS)

test-slow: setup  ## the tests on SmolLM2 and in a real Chromium
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || { echo "chromium is missing: install it with your package manager (Debian: sudo apt-get install chromium)"; exit 2; }
	$(BIN)/python -m pytest -q -m slow $(ARGS)

DUCKDB_1 := $(VENV)/duckdb-1
$(DUCKDB_1): setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ 'duckdb==1.4.*'

test-duckdb-1: $(DUCKDB_1)  ## all that asks DuckDB, with its oldest version that is supported
	PYTHONPATH=$(DUCKDB_1) $(BIN)/python -m pytest -q tests/store tests/autointerp tests/app/test_cli.py tests/app/test_feature_query.py tests/app/test_notebook.py $(ARGS)

lint: setup  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

check: lint test  ## everything that must pass before a commit

bench: setup  ## measure and write bench/results; ARGS='harvest* train_step' chooses, without it all but the slow ones
	$(BIN)/python bench/run.py $(ARGS)

clean:  ## remove .venv and caches, keep runs
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis test-artifacts
