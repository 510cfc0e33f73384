# Each target does all of its own set-up: Python 3.11 or newer, make and a C library are enough.
PYTHON ?= python3
BIN ?= .venv/bin
RESULTS ?= results
REFERENCE := results/reference
# tox calls the checks below with BIN set to its own environment; then there is nothing to set up here.
SETUP := $(if $(filter .venv/bin,$(BIN)),.venv/.done)

# Groups of tests that share what they train stay together (tests/conftest.py); the first ones take longest.
PYTEST = $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadgroup --no-loadscope-reorder --benchmark-disable

.PHONY: bench test lint type py coverage mutation slow speed board clean

bench: $(SETUP)  ## the main job: prepare, train, record, rank
	$(BIN)/bench run --suite quick --results $(RESULTS)
	@$(BIN)/bench board --results $(RESULTS) > /dev/null && echo "written to $(RESULTS)/LEADERBOARD.md"

test: lint type py  ## what has to pass before anything lands

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(SETUP)
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

board: $(SETUP)  ## the published leaderboard, claims, page and figures are what their records give
	$(BIN)/bench board --check --results $(REFERENCE) --html $(REFERENCE)/site --figures $(REFERENCE)/figures
	$(BIN)/bench verify-claims --check --results $(REFERENCE)

.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt torch
	.venv/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .tox .mypy_cache .pytest_cache .ruff_cache
