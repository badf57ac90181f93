# The door: every target installs what it needs and stays thin; the work is in scripts/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH_STAMP := $(VENV)/.torch-installed
MANIFESTS := uv.lock pyproject.toml $(wildcard core/pyproject.toml server/pyproject.toml \
  launcher/pyproject.toml backends/*/pyproject.toml)

# What `make serve ARGS="..."`, `make test ARGS="..."` and `make install-torch ARGS="..."` pass on.
ARGS ?=
PORT ?= 3000

.PHONY: help install install-torch serve test test-models check format lock demo-model

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | sort | awk -F'\t' '{printf "make %-14s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv with every member, the development tools and the compiled llama.cpp

$(STAMP): $(MANIFESTS) scripts/install.sh scripts/llama_cpp_wheel.py $(wildcard scripts/patches/*) \
  $(wildcard backends/*/hatch_build.py backends/*/src/*/native/*.[ch] \
  backends/*/src/*/engine/devices/native/*.[ch])
	@scripts/install.sh
	@touch $@

install-torch: $(STAMP) ## add PyTorch, for the torch backend and for tests; ARGS="…" go to pip
	@$(BIN)/python scripts/install_torch.py $(ARGS)
	@touch $(TORCH_STAMP)

$(TORCH_STAMP): $(STAMP) backends/torch/requirements.txt scripts/install_torch.py
	@$(BIN)/python scripts/install_torch.py
	@touch $@

serve: $(STAMP) ## serve the demo model on port $(PORT); ARGS="--model-id …" serves another
	@exec $(BIN)/backplane --port $(PORT) $(ARGS)

test: $(TORCH_STAMP) ## run every test; ARGS="tests/core -k scheduler" runs some
	@$(BIN)/python -m pytest --durations=15 $(ARGS)

test-models: $(TORCH_STAMP) ## hold every architecture to transformers; ARGS=--write-page writes docs/models.md
	@$(BIN)/python -m pytest tests/torch/models -m "" $(ARGS)

check: $(TORCH_STAMP) ## formatting, lint, types, import contracts, pickle and tree lints, lock
	@$(BIN)/python scripts/check.py

format: $(STAMP) ## let ruff mend what it can
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

lock: ## make uv.lock anew from the pyproject files
	@scripts/install.sh lock

demo-model: $(STAMP) ## train the demo model anew (about an hour on two cores)
	@$(BIN)/python demo-model/build.py $(ARGS)
