# make demo   diagnose a classifier with a planted bias, and say where the report lies
# make test   lint, unit tests, then every notebook with the smoke preset
# Both make .venv by themselves; it needs Python 3.11 or newer, and nothing else.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PRESET ?= smoke
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
# Compiled once, whatever the environment says: a kernel then starts in half the time.
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/bytecode
unexport PYTHONDONTWRITEBYTECODE
NOTEBOOKS = $(shell find notebooks -name '*.ipynb' -not -path '*/.ipynb_checkpoints/*' | sort)

.PHONY: setup demo test lint unit notebooks smoke lab clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "visiondx needs Python 3.11 or newer: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Setting up $(VENV) (about three minutes, once)"
	@rm -f $(STAMP) && $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[test]'
	@touch $(STAMP)

demo: setup
	@$(BIN)/visiondx run notebooks/diagnose.ipynb --preset embedded -p name demo --out runs/diagnose/demo
	@echo "The report: $(CURDIR)/runs/diagnose/demo/report.html"

test: lint unit smoke

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo --no-cache

unit: lint
	@$(BIN)/python -m pytest -x -n 2 --dist loadfile --ignore=tests/test_notebooks.py

smoke: unit
	@$(BIN)/python -m pytest -v tests/test_notebooks.py

notebooks: setup
	@set -e; for n in $(NOTEBOOKS); do $(BIN)/visiondx run "$$n" --preset $(PRESET); done

lab: setup
	@$(BIN)/jupyter lab --notebook-dir=notebooks

clean:
	rm -rf $(VENV) runs build lib/*.egg-info .pytest_cache .ruff_cache
	find lib tests -name __pycache__ -type d -prune -exec rm -rf {} +
