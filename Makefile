# Each target does all of its own set-up: Python 3.11 or newer, make and a C library are enough.
PYTHON ?= python3
BIN ?= .venv/bin
RESULTS ?= results
REFERENCE := results/reference
# The main job runs on the base installation, the checks need the development extras; both are in one environment.
# tox calls the checks with BIN set to its own environment; then there is nothing to set up here.
BASE := $(if $(filter .venv/bin,$(BIN)),.venv/.bench)
SETUP := $(if $(filter .venv/bin,$(BIN)),.venv/.done)
# pip compiles nothing, Python what is imported, once: most of what is installed never is. The variable must not forbid it.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := .venv/bin/python -m pip install --disable-pip-version-check --no-compile -q -c constraints.txt

# Groups of tests that share what they train stay together (tests/conftest.py); the first ones take longest.
PYTEST = $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadscope --no-loadscope-reorder --benchmark-disable

.PHONY: bench test lint type py coverage mutation slow speed board clean help

bench: $(BASE)  ## the main job: prepare, train, record, rank
	$(BIN)/bench run --suite quick --results $(RESULTS)
	@$(BIN)/bench board --results $(RESULTS) > /dev/null && echo "written to $(RESULTS)/LEADERBOARD.md"

test: lint type py  ## what has to pass before anything lands

lint: $(SETUP)  ## linter, formatter, and that imports only go down
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

type: $(SETUP)  ## the type checker
	$(BIN)/mypy

py: $(SETUP)  ## the tests, in as many processes as there are cores, at most 8
	$(PYTEST)

coverage: $(SETUP)  ## the same with coverage, which must not fall below its floor
	$(PYTEST) --cov

mutation: $(SETUP)  ## how many of a sample of faults the tests find, at most an hour
	$(BIN)/python -m tests.support.mutation

slow: $(SETUP)  ## tests on the real data and the real language model, minutes
	$(BIN)/python -m pytest -m slow

# Tests wait passively elsewhere, to spare a shared machine, but waking a thread takes longer than most operations: here
# threads turn for a millisecond first, as they do in other programs.
speed: $(SETUP)  ## ratios against peers and a bare loop, into results/SPEED.md
	GOMP_SPINCOUNT=300000 $(BIN)/python -m pytest tests/speed -o addopts= -s --report results/SPEED.md --benchmark-columns=min,median,max

board: $(SETUP)  ## the published leaderboard, claims, page, figures and tables are what their records give
	$(BIN)/bench board --check --results $(REFERENCE) --html $(REFERENCE)/site --figures $(REFERENCE)/figures --readme README.md
	$(BIN)/bench verify-claims --check --results $(REFERENCE)

.venv/.bench: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) torch
	$(INSTALL) -e .
	touch $@

.venv/.done: .venv/.bench
	$(INSTALL) -e '.[dev]'
	touch $@

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

clean:  ## remove the environments and the checkers' caches
	rm -rf .venv .tox .mypy_cache .pytest_cache .ruff_cache
