# `make demo` and `make test` do everything on a fresh machine with Python 3.11+, its venv module and headers, and a C++
# compiler (Debian: apt-get install python3 python3-venv python3-dev g++).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-fast lint bench docs clean

demo: $(VENV)/.installed
	$(BIN)/lapidist demo

test: $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest

test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Compiles llama.cpp, writes a 2.5 GB checkpoint to out/, and wants a quiet machine for about half an hour.
bench: $(VENV)/.installed-dev
	$(PIP) install -c constraints.txt -e ".[peers]"
	$(BIN)/python -m benchmarks

docs: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e ".[docs]"
	$(BIN)/mkdocs build --strict

# torch is installed first and by its exact version: a bare `torch` would bring gigabytes of CUDA to a CPU machine.
NATIVE := CMakeLists.txt $(wildcard native/*.cpp native/*.h)

$(VENV)/.installed: pyproject.toml constraints.txt $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install "$$(grep '^torch==' constraints.txt)"
	$(PIP) install -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build src/lapidist/kernels/cpu/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
