# One environment in .venv, made by the first target that needs it.  `make help` lists the targets.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help install dev demo test test-parity test-slow lint types bench gpu-check build clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-11s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed  ## install vlprep and the libraries it needs, in tested versions

dev: $(VENV)/.dev  ## the same, and the tools for tests, lint and types

demo: $(VENV)/.installed  ## render a small dataset, extract its regions, pretrain on them, show where the results are
	$(BIN)/vlprep demo --out demo

test: $(VENV)/.dev  ## the tests, under 10 minutes on 2 cores
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not gpu"

test-parity: $(VENV)/.dev  ## full-size networks against the published numbers, 2 minutes
	$(BIN)/python -m pytest -q -m "slow and not gpu" tests/detect tests/clips

test-slow: $(VENV)/.dev  ## the same, endurance (kills, memory, 10 000 videos) and learning, about an hour
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "slow and not gpu" --timeout=1800

lint: $(VENV)/.dev  ## ruff and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev  ## mypy --strict
	$(BIN)/mypy

bench: $(VENV)/.dev  ## every claim about speed, each as a ratio measured in one run
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

gpu-check: $(VENV)/.dev  ## the checks that need a CUDA device: a table, and JSON in out/
	$(BIN)/python benchmarks/gpu_check.py

build: $(VENV)/.dev  ## sdist and wheel in dist/
	$(BIN)/python -m build

clean:  ## remove what the other targets made
	rm -rf build dist out demo .pytest_cache .mypy_cache .ruff_cache
