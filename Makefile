# make demo   set up, then run the whole pipeline on the bundled models; its report is under runs/demo
# make test   set up, then run the tests
# make nightly  set up, then run the tests that take minutes each
# make lint   formatting, lint, types, import layers
# make docs   the documentation as a site, in site/
# make clean  remove the environment and what tools leave behind; runs/ stays
#
# PYTHON=python3.12 picks another interpreter. TMPDIR is honoured by everything below.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.PHONY: demo test nightly lint docs clean

demo: $(STAMP)
	@$(BIN)/prism-fast demo --out runs/demo

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not nightly"

nightly: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist load -m nightly

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy examples
	@$(BIN)/lint-imports

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	@rm -rf .venv build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +

# Made again when the dependencies change; the editable install follows the sources by itself.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "error: $(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "error: $(PYTHON) cannot make environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "[1/2] environment: .venv ($$($(PYTHON) --version))"
	@$(PYTHON) -m venv .venv
	@echo "[2/2] packages: with torch, CUDA libraries and TensorRT 7.5 GB of disk, this is the long step"
	@$(PIP) install --quiet --progress-bar off -c constraints.txt \
	  -e '.[cpu,dali,dev,docs,llm,metrics,minis,objects,ray,slurm,trt]'
	@touch $(STAMP)
