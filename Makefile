# make setup    .venv with tce in it          make demo        see it work, within three minutes
# make test     set-up and the whole suite    make check       lint, format, types, imports
# make docs     the documentation as a site   make test-avx2   its numeric part, as on an older processor
# make science DATA=... OUT=...   the first tables of docs/results.md; says its minutes, resumes (ARGS=--quick)
# On a machine without a GPU, where the installer would fetch CUDA packages:
#   make setup PIP_FLAGS="--index-url URL_OF_THE_CPU_BUILDS --extra-index-url URL_OF_THE_USUAL_INDEX"
# (README, "Installation", says where these are found), or   make setup INSTALL="uv pip install --torch-backend cpu"

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALL ?= $(BIN)/python -m pip install --disable-pip-version-check -q
PIP_FLAGS ?=
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

.PHONY: setup dev demo test test-avx2 science campaign check docs format clean

setup: $(VENV)/.installed
dev: $(VENV)/.dev

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "tce needs Python 3.11 or newer; found none (set PYTHON=/path/to/python)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) $(PIP_FLAGS) -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(INSTALL) $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/tce demo

# One torch thread a test process: two processes on two cores beat two threads in one.
test: dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $${TEST_PROCESSES:-2} --dist worksteal $(ARGS)

# The part whose numbers could depend on the processor, as on one with AVX2 only (no AVX-512, no bf16).
NUMERIC := tests/test_device.py tests/contrast tests/train tests/model tests/embedding tests/adaptation
test-avx2: dev
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -n $${TEST_PROCESSES:-2} --dist worksteal $(wildcard $(NUMERIC)) $(ARGS)

OUT ?= runs/science
science: dev
	@test -n "$(DATA)" || { echo "give DATA=FOLDER with gestures/ and fights/ (docs/results.md)"; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/science.py --data "$(DATA)" --out "$(OUT)" $(ARGS)

# Two hundred kills, a million damaged files; docs/reliability.md has the last output.
campaign: dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/campaign.py --out runs/campaign $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fuzz.py --out runs/fuzz

check: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@$(MAKE) --no-print-directory docs

# Fails on a broken link, a missing page or a public name without documentation.
docs: dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) site build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache
