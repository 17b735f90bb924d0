# Everything a day at this repository needs. Paths are relative: the checkout may lie in a folder with spaces.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

AT_LEAST := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(or $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c '$(AT_LEAST)' >/dev/null 2>&1 && echo "$$name" && break; done),python3)
PY := .venv/bin/python
STAMP := .venv/.installed
# Processes that run the tests, each with servers of its own; 0 runs them in one.
WORKERS ?= 2
# Whole files go to one process, in the order of their folders: the short unit tests come last and fill what is left.
SHARED := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# More arguments for pytest, for example ARGS="-k launcher -x".
ARGS ?=
SEED := $(or $(SEED),$(shell od -An -N3 -tu4 /dev/urandom | tr -d ' '))

.PHONY: help
help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: $(STAMP) ## Make .venv with every dependency pinned (PYTHON=... names another interpreter)

$(STAMP): constraints.txt pyproject.toml
	@"$(PYTHON)" -c '$(AT_LEAST)' 2>/dev/null || { \
		echo "Python 3.11 or later is needed. Install it, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) comes without venv and ensurepip. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(PY) || "$(PYTHON)" -m venv .venv || { rm -rf .venv; echo "$(PYTHON) -m venv failed" >&2; exit 1; }
	@# The file is whole: pip must not resolve, or it looks at releases newer than the pinned ones and refuses them.
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r constraints.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(PY) -m pip check --disable-pip-version-check >&2
	@touch $(STAMP)

.PHONY: run
run: proto ## Run a whole registry on this machine; Ctrl-C stops it
	@$(PY) -m deploy.local

.PHONY: demo
demo: proto ## Play a recovery from damaged data, in about two minutes, in a temporary folder
	@$(PY) -m deploy.local.demo

.PHONY: test
test: proto ## Run the tests against real servers
	$(PY) -m pytest $(SHARED) $(ARGS)

.PHONY: test-slow
test-slow: proto ## Run the long tests (SEED=... repeats a run, ROTATION=all does every case)
	@echo "seed: $(SEED) (repeat with: make test-slow SEED=$(SEED))"
	$(PY) -m pytest $(SHARED) -m slow --hypothesis-seed=$(SEED) $(ARGS)

.PHONY: check
check: proto ## Check format, lint, types and protos, then run the tests
	$(PY) -m ruff format --check
	@$(MAKE) lint types breaking test

.PHONY: bench
bench: proto ## Run the benchmarks, all of them, and fail when one missed its target
	@missed=0; for program in tests/bench/bench_*.py; do \
		echo "== $$program"; PYTHONPATH=.:shared $(PY) "$$program" || missed=1; \
	done; exit $$missed

.PHONY: proto
proto: setup ## Generate code from the protos when they changed
	@$(PY) protos/generate.py 2> >(grep -v '^up to date$$' >&2 || true)

.PHONY: fmt
fmt: setup ## Format Python and protos
	$(PY) -m ruff check --fix --quiet || true
	$(PY) -m ruff format
	.venv/bin/buf format -w

.PHONY: lint
lint: setup ## Lint Python and protos
	$(PY) -m ruff check
	.venv/bin/buf lint
	.venv/bin/buf format --diff --exit-code

.PHONY: types
types: proto ## Check types
	$(PY) -m mypy

.PHONY: breaking
breaking: setup ## Compare the protos with those of the last release
	@if test -f protos/released.binpb; then \
		.venv/bin/buf breaking --against protos/released.binpb; \
	else \
		echo "buf breaking: nothing to compare with, no release yet (protos/released.binpb)"; \
	fi

.PHONY: clean
clean: ## Remove what was generated or built; .venv and .local stay
	rm -rf build dist shared/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	rm -rf shared/llm_schema_registry/*/v1 shared/llm_schema_registry/.protos.digest
	find deploy protos services shared tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: constraints
constraints: ## Pin the dependencies anew (needs uv)
	@command -v uv >/dev/null || { echo "uv is needed: pip install uv, in an environment of its own" >&2; exit 1; }
	UV_CUSTOM_COMPILE_COMMAND="make constraints" uv pip compile --python-version 3.11 --universal --generate-hashes \
		--no-emit-index-url --no-emit-find-links --all-extras --quiet --output-file constraints.txt pyproject.toml
