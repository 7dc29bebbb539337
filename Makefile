# Two commands on a fresh machine: `make demo` and `make test`.  Each does all its set-up, once.
#
#   PYTHON=python3.12   which interpreter makes the virtual environment (default: the newest found)
#   ARGS="..."          passed on, e.g. make demo ARGS="--nodes 4", make test ARGS="-k layout"

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One more than there are cores: half of the tests wait for real daemons.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))

.PHONY: help demo test fuzz bench bench-peers bench-learning bench-learning-short lint types format install clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP)  ## three nodes on this machine learn together, found over mDNS
	@$(BIN)/covey demo $(ARGS)

test: $(STAMP)  ## every test, real daemons included
	@$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

fuzz: $(STAMP)  ## 200 000 hostile inputs for each decoder: some minutes
	@COVEY_FUZZ=200000 $(BIN)/pytest -q -n auto -o timeout=0 -k "fuzz or hostile" tests/protocols tests/gossip $(ARGS)

bench-learning: $(STAMP)  ## the claims about learning, and docs/algorithm.md's tables: under an hour
	@$(BIN)/python -m tests.benchmarks.learning --document docs/algorithm.md $(ARGS)

bench-learning-short: $(STAMP)  ## the same claims with fewer seeds and nodes: under five minutes
	@$(BIN)/python -m tests.benchmarks.learning --short $(ARGS)

bench: $(STAMP)  ## speed, beside the peers that are set up, and the documents: ten minutes
	@$(BIN)/python -m tests.benchmarks.perf --document docs/performance.md --readme README.md $(ARGS)

bench-peers: $(STAMP)  ## set up hivemind and Flower in .bench, for `make bench`
	@bash tests/benchmarks/perf/peers.sh .bench $(BIN)/python

lint: $(STAMP)  ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy --strict over sources, tests and examples
	@$(BIN)/mypy

format: $(STAMP)  ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

install: $(STAMP)  ## only the set-up: .venv with the pinned versions
	@:

clean:  ## remove .venv and everything built
	@rm -rf $(VENV) build dist *.egg-info gossip/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is newer than the pins and the C extension's source, or the set-up runs again; a broken
# one starts afresh.  A
# `pip install .` by hand would leave a copy of covey there instead of the link to this folder (PEP
# 610 tells which), and the tests would test that.
LINKED := $(shell grep -ls '"editable": *true' $(VENV)/lib/python3*/site-packages/covey-*.dist-info/direct_url.json)
.PHONY: unlinked
$(STAMP): pyproject.toml constraints.txt deploy/install.sh setup.py gossip/_kernels.c $(if $(LINKED),,unlinked)
	@PYTHON="$(PYTHON)" bash deploy/install.sh $(VENV)
	@touch $@
