# Two commands do everything: `make run` and `make test`.

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: run test tools check bench faults conformance format clean

run: $(VENV)/.runtime
	@exec $(BIN)/pongee serve --port $(PORT)

test: $(VENV)/.development tools
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.development
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.development
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.fleet
	$(BIN)/python -m benchmarks.brokers
	$(BIN)/python -m benchmarks.stalled

faults: $(VENV)/.development
	$(BIN)/python -m tests.faults

conformance: $(VENV)/.development
	$(BIN)/python -m tests.conformance.autobahn --compare

format: $(VENV)/.development
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Debian's chromium, nginx and nodejs, where we may install them, and the JavaScript SDK; tests that
# need them say so elsewhere.
tools:
	@scripts/install-tools

$(VENV)/.base: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pongee needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.development: $(VENV)/.base requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .import_linter_cache
