# make demo: a gradient-flow report of three real networks.   make test: the whole suite.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
C_FILES = csrc/*.[ch] csrc/*/*.[ch] src/jacometry/include/jacometry/*.h tests/c/*.[ch] \
	tests/abi/*.c examples/embedding/*.c
CYTHON_FILES = src/jacometry/*.pyx src/jacometry/*.pxi src/jacometry/*.pxd examples/embedding/*.pyx

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
	$(BIN)/python -m pip install --quiet --group lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint $(CYTHON_FILES)
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build src/*.egg-info src/jacometry/*.so src/jacometry/_kernels.c src/jacometry/cython_api.c
