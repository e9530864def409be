# `make compare` runs the main comparison, `make test` the tests; both set everything up first.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup compare lint test test-slow bench docs lock

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/installed  ## make .venv and install the pinned requirements and the project

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"mmlit needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}; choose another with make PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet uv
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

compare: setup  ## run the comparison of the four alignments (about 12 minutes on 2 cores), print its table, write its report
	$(BIN)/mmlit data scenes --root data/scenes
	$(BIN)/python train.py --config-dir sweeps --config-name alignments
	$(BIN)/mmlit compare outputs/alignments --report outputs/alignments/report.html

lint: setup  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup  ## the tests that take seconds each
	$(BIN)/pytest -n 2 -m "not slow"

test-slow: setup  ## the tests that take longer
	$(BIN)/pytest -n 2 -m slow --timeout 900

docs: setup  ## write docs/encoders.md and docs/methods.md anew
	$(BIN)/python -m mmlit.configuration.encoder_table > docs/encoders.md
	$(BIN)/python -m mmlit.configuration.method_page > docs/methods.md

lock: setup  ## pin the requirements anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev -o requirements.lock pyproject.toml

bench: setup  ## measurements side by side; each prints a table and a line of JSON
	@for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done
