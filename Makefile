# make demo: the main job, end to end, on the embedded sessions.   make test: what a change must pass.

PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
STAMP := .venv/.setup-stamp

# The embedded student comes from the package index, so that everyone has the same weights.
demo test test-student: export HF_HUB_OFFLINE = 1
demo test test-student: export LITELLM_LOCAL_MODEL_COST_MAP = True
demo test test-student: export TRL_EXPERIMENTAL_SILENCE = 1
demo test test-student: export TOKENIZERS_PARALLELISM = false
# Threads that wait must not spin: beside another busy process that costs several times the work.
demo test test-student: export OMP_WAIT_POLICY = PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-student lint types clean

help:
	@echo "make demo          distill, train, compile, generate, evaluate on the embedded sessions"
	@echo "make test          lint, types and tests (make test-student: with the real student)"
	@echo "make setup         install everything into .venv; lint, types, clean: as they say"

setup: $(STAMP)

# torch goes first: a local or CPU build of the pinned version then serves all that needs it.
# Build tools are pinned, too, so the package is built with them and not in isolation.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setup 1/2: torch into .venv (the first time takes minutes)"
	@$(PIP) install -c constraints.txt setuptools wheel torch==2.13.0
	@echo "setup 2/2: routedk and its libraries"
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

demo: setup
	@$(BIN)/routedk demo

# Two processes of one thread each, which suits two cores.
test: export OMP_NUM_THREADS = 1
test: lint types
	@$(BIN)/pytest -n 2

test-student: setup
	@$(BIN)/pytest -m student

lint: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

# A type checker does not follow an editable install to folders of other names, so it gets a tree
# of links in which every package lies where it is imported from.
types: setup
	@rm -rf build/typecheck/routedk && mkdir -p build/typecheck/routedk
	@cd build/typecheck/routedk && ln -s ../../../routedk/* .
	@cd build/typecheck/routedk && ln -s $(addprefix ../../../,programs optimizers adapters eval) .
	@cd build/typecheck && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p routedk

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
