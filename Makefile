# onnxqp. Every target makes the virtual environment that it needs; nothing has to be installed by hand.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?= -n 2 -rs

BIN := $(VENV)/bin
MODEL := sample_models/residual_cnn.onnx
DATA := --data sample_models/data/calib.npz --eval sample_models/data/eval.npz
SOURCES := onnxqp tests benchmarks sample_models docs

.DEFAULT_GOAL := help
.PHONY: help demo test check lint bench docs clean

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## Shrink a sample model: inspect, quantize, prune, validate (results in demo/)
	@rm -rf demo && mkdir demo && cp $(MODEL) demo/model.onnx
	$(BIN)/onnxqp inspect demo/model.onnx
	$(BIN)/onnxqp quantize demo/model.onnx $(DATA)
	$(BIN)/onnxqp prune demo/model.onnx --ratio 0.5 $(DATA)
	$(BIN)/onnxqp validate demo/model.onnx demo/model.int8.onnx $(DATA) --max-drop 1 --min-size-ratio 2 --report demo/report.md

test: $(VENV)/.installed-dev ## Install what the tests need and run them all
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint test ## Format, lint, types, tests: all that must be clean

lint: $(VENV)/.installed-dev ## Format, lint and types alone
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

bench: $(VENV)/.installed ## Latency of the sample models before and after, written to demo/bench/
	@rm -rf demo/bench && mkdir -p demo/bench
	@for model in sample_models/*.onnx; do \
	  name=demo/bench/$$(basename $$model .onnx); \
	  $(BIN)/onnxqp quantize $$model -q --no-validate -o $$name.int8.onnx > $$name.txt \
	    && $(BIN)/onnxqp prune $$model -q --no-validate --ratio 0.5 -o $$name.pruned.onnx >> $$name.txt \
	    && $(BIN)/onnxqp bench -q $$model $$name.int8.onnx $$name.pruned.onnx || exit $$?; \
	done

docs: $(VENV)/.installed ## Write docs/commands/ from the program
	$(BIN)/python docs/build.py

clean: ## Remove what was built, but for the virtual environment
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- the virtual environment, renewed when pyproject.toml changes --------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "onnxqp needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,train]'
	@touch $@ $(VENV)/.installed
