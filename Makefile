# Everything needs git, make and Python >= 3.11; the rest is installed by the first target that
# wants it, into .venv and MILLRACE_CACHE.

PYTHON ?= python3
BIN := .venv/bin
SIDE_BY_SIDE := -n 2 --dist loadgroup --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test check setup up down status doctor fmt lint type imports unit services soak golden clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## run the main job on real data, end to end (ARGS="--fast", ARGS="--down")
	@$(BIN)/millrace demo $(ARGS)

test: check ## everything that is checked: lint, types, import rules, all tests
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

check: lint type imports ## what needs no test run: lint, format, types, import rules

setup: ## install what is missing (uv, the locked packages, Java, jars); says how much
	@$(PYTHON) stack/bootstrap.py

up: setup ## start the local stack (ARGS="spark" for one part) and wait until it is ready
	@$(BIN)/millrace up $(ARGS)

down: setup ## stop the local stack
	@$(BIN)/millrace down

status: setup ## show the local stack
	@$(BIN)/millrace status

doctor: setup ## say what is installed, reachable and wrong, and the mend
	@$(BIN)/millrace doctor

fmt: setup ## format the code and mend what lint can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: setup ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

type: setup ## mypy, strict
	@$(BIN)/mypy

imports: setup ## the import rules between the rooms
	@$(BIN)/lint-imports

unit: setup ## the tests that need no server
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not services" $(ARGS)

services: setup ## the tests that start real servers
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m services $(ARGS)

soak: setup ## the long forms of tests: 1000 examples a property, minutes of kills, full traffic
	@HYPOTHESIS_PROFILE=thorough MILLRACE_TEST_MINUTES=10 MILLRACE_TEST_RATE=2000 \
	  MILLRACE_TEST_SECONDS=60 $(BIN)/python -m pytest -n 0 -m "soak or hypothesis" $(ARGS)

golden: setup ## rewrite the compiled texts under tests/golden; review the difference
	@$(BIN)/python -m tests.golden.rewrite

clean: ## remove .venv and caches of tools; downloads and stacks stay
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
