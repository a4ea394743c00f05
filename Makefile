# make demo: a gradient-flow report of three real networks.   make test: the whole suite.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

demo: $(BIN)/python
	$(BIN)/python -m pip install --quiet '.[plot]'
	$(BIN)/jacometry demo --html jacometry-demo.html

test: $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[test]'
	$(BIN)/python -m pytest

lint: $(BIN)/python
	$(BIN)/python -m pip install --quiet '.[lint]'
	$(BIN)/ruff check .
	$(BIN)/cython-lint src/jacometry/_kernels.pyx
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.c' '*.h')
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build src/*.egg-info src/jacometry/*.so src/jacometry/_kernels.c
