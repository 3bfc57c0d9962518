# Draft Workbench. `make` alone says what there is.
PYTHON ?= python3
# The torch to install, said exactly. For a GPU: make setup TORCH="torch==2.13.0 --index-url URL"
TORCH = torch==2.13.0
# Test files run side by side, in the order of tests/conftest.py (xdist would begin with those of the
# most tests, and end with the longest); ARGS="--numprocesses 0" is needed for a debugger.
PROCESSES = 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp-setup
PIP = $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet --quiet

export PYTHONNOUSERSITE = 1

.DEFAULT_GOAL := help
.PHONY: help setup lab app test lint format docs lock clean FORCE

help: ## Say what there is
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(STAMP) ## Make .venv and install everything from the lock

ifeq ($(origin TORCH),command line)
$(STAMP): FORCE
endif

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Draft Workbench needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not there)."; \
	  echo "Say which one to use: make setup PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version): some minutes and 2 GB the first time."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "  1/2 $(TORCH)"
	@$(PIP) install $(TORCH) 'setuptools>=77' $(if $(filter command,$(firstword $(origin TORCH))),,--constraint constraints.txt)
	@echo "  2/2 everything else, from constraints.txt"
	@sed -E '/^(torch|setuptools)==/d' constraints.txt > $(VENV)/constraints.txt
	@$(BIN)/python -c 'import importlib.metadata as m; print("torch==" + m.version("torch"))' >> $(VENV)/constraints.txt
	@$(PIP) install --no-build-isolation --constraint $(VENV)/constraints.txt --editable '.[all]'
	@touch $@
	@echo "Ready. Next: make lab"

lab: setup ## Open the tour in JupyterLab
	@$(BIN)/workbench lab

app: setup ## Serve the dashboard on 127.0.0.1
	@$(BIN)/workbench app

test: setup ## Run every test: engine, notebooks, browser
	@$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder --nbval-lax --nbval-current-env --nbval-sanitize-with tests/sanitize.cfg $(ARGS)

lint: setup ## Check format, style, import rules and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy

format: setup ## Put the code in the house style
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

docs: setup ## Write docs/methods.md from the registry
	@$(BIN)/python -m workbench.docs

lock: ## Write constraints.txt anew from what a fresh install resolves to
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --quiet $(TORCH)
	build/lock/bin/python -m pip install --quiet --quiet $(TORCH) --editable '.[all]'
	build/lock/bin/python -m pip freeze --all --exclude-editable \
	  | sed -E -e '/^pip==/d' -e 's/\+[A-Za-z0-9.]+$$//' -e '/ @ /d' | sort -f > constraints.txt
	rm -rf build/lock

clean: ## Remove .venv and everything generated
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache *.egg-info
	find workbench widgets tests -name __pycache__ -type d -prune -exec rm -rf {} +
