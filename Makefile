# Both commands work on a fresh machine with Python 3.11 to 3.13: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test
demo: .venv/demo
	$(BIN)/rmiseg demo --out runs/demo

test: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto

# One environment; each mark says that the packages of an extra are in it.
.venv/%: pyproject.toml setup.py $(wildcard src/rmiseg/kernels/native/*.cpp src/rmiseg/kernels/native/*.h)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --python $(BIN)/python --editable ".[$*]"
# Compiled from source, which not every machine can; its tests are left out where it fails.
	test $* != test || $(BIN)/uv pip install --python $(BIN)/python --editable ".[crf]" || true
	touch $@
