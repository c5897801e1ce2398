# The commands of this project. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup lint check test fuzz lab lab-clean demo demo-clean pictures

VENV := .venv
BIN := $(VENV)/bin
# The first Python that is new enough; PYTHON=... chooses another.
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
    $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
# More than there are cores: tests on hosts mostly wait. Each may hold three of sixteen hosts.
WORKERS ?= 4
# What was set up for the tests of a module or class is set up once: they stay in one worker.
SHARE := --dist loadscope --no-loadscope-reorder
# Certificates of the machine, not those that uv carries: a company's proxy is known to the former.
export UV_SYSTEM_CERTS := 1
# Each of the many processes that the tests start would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.synced ## the environment in .venv, from uv.lock

lint: setup ## style, types, layering, shell
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck .ci/run
	find ops deploy tests -name '*.sh' -print0 | xargs -0 $(BIN)/shellcheck --shell sh

check: lint ## lint, the tests that need no host but for slow ones, coverage of what decides: 4 minutes
	$(BIN)/pytest -n $(WORKERS) $(SHARE) -m 'not slow and not timed' --cov --durations 10 tests/unit tests/facts tests/operations

test: lint ## everything that CI runs: lint, then the tests, on real hosts where the lab can run
	$(BIN)/pytest -n $(WORKERS) $(SHARE) -m 'not timed' --durations 10 --cache-clear || $(BIN)/python -m tests.alone
	$(BIN)/pytest -m timed --durations 10 --cache-clear || $(BIN)/python -m tests.alone # they measure time

fuzz: setup ## every probe on hosts that lie, with more than 10,000 new examples
	@$(BIN)/python -m tests.fuzz $(SEED)

lab: setup ## start a lab host, for inventories/lab.py
	$(BIN)/python -m tests.lab up

lab-clean: ## remove all that the lab made on this machine
	@$(call python) -m tests.lab clean

demo: setup ## a broken stack on a lab host: shown, mended, and proven mended
	@$(BIN)/python -m tests.lab.demo

pictures: setup ## run the demo, and draw the pictures of the README from it: docs/pictures
	@$(BIN)/python -m tests.lab.pictures

demo-clean: lab-clean ## leave nothing behind: the lab, and the environment if `make` made it
	@if [ -e $(VENV)/.made-by-make ]; then rm -rf $(VENV); fi
	@find . -path ./$(VENV) -prune -o -name __pycache__ -print0 | xargs -0 rm -rf
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# Any Python will do for taking the lab down: it needs no package.
python = $$(if [ -x $(BIN)/python ]; then echo $(BIN)/python; else echo $(PYTHON); fi)

$(VENV)/.synced: pyproject.toml uv.lock | $(BIN)/python
	@$(BIN)/python -c 'import uv' 2> /dev/null || $(BIN)/python -m pip install -q 'uv>=0.8'
	@$(BIN)/uv sync -q --frozen --inexact --compile-bytecode
	@touch $@

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
	    echo 'Python 3.11 or newer is needed; none is on PATH.' >&2; exit 1; \
	fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2> /dev/null; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	        apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv; \
	    else \
	        echo 'The venv module is missing: install the package python3-venv.' >&2; exit 1; \
	    fi; \
	fi
	@$(PYTHON) -m venv $(VENV)
	@touch $(VENV)/.made-by-make
