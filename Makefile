# `make demo` and `make test` need only a Python of at least 3.10 and work from a fresh clone.
# Each install leaves a stamp in .venv, so a second call installs nothing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
METADATA := pyproject.toml constraints.txt
CODE := shared imagediff audiodiff cli.py cli_edits.py recipes benchmarks tests

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 14

demo: $(VENV)/.installed ## make twelve images, four clips and pictures of them all in demo/
	$(BIN)/python recipes/demo_sheet.py --out demo
	$(BIN)/python recipes/demo_music.py --out demo

test: $(VENV)/.installed-test ## run the tests
	$(BIN)/python -m pytest -q

lint: $(VENV)/.installed-dev ## check style and format
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

format: $(VENV)/.installed-dev ## rewrite the code in the house's format
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

types: $(VENV)/.installed-dev ## check the types of the whole tree
	$(BIN)/pyright

clean: ## remove what these targets made
	rm -rf $(VENV) demo build dist .pytest_cache .ruff_cache
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: no '$(PYTHON)' found; install Python 3.10 or newer, or run: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make: $$($(PYTHON) --version) is too old, 3.10 or newer is needed; run: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: this Python cannot create environments; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(METADATA) | $(BIN)/python
	@echo "installing into $(VENV) (the first time takes a few minutes)"
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-test: $(METADATA) | $(BIN)/python
	$(PIP) install --constraint constraints.txt --editable '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(METADATA) | $(BIN)/python
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test
