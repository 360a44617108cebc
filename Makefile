# Two commands for a fresh machine with Python 3.11 to 3.14: make demo, make test. For whoever works on the code:
# make lint (seconds), make quick (two minutes on two cores), make test (eight), make nightly (the tests of minutes each,
# more random cases), make docs (the pages, in build/site).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint quick nightly docs explore audit
demo: .venv/demo
	$(BIN)/rmiseg demo --out runs/demo

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not nightly"

nightly: .venv/test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "nightly or hypothesis" --hypothesis-profile many

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every implementation of the losses against float64, over random configurations; every reader of files on mutated ones;
# every command killed, and given again.
explore: .venv/test
	$(BIN)/python tests/explore/losses.py --count 10000
	$(BIN)/python tests/explore/readers.py --inputs 10000
	$(BIN)/python tests/explore/kills.py --kills 20
	$(BIN)/python tests/explore/obstacles.py

# Known vulnerabilities of the packages that are installed here, as the Python Packaging Advisory Database has them.
audit: .venv/test
	mkdir -p build
	$(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable | grep == | sed 's/+[a-z0-9.]*$$//' > build/installed.txt
	$(BIN)/uv tool run pip-audit --requirement build/installed.txt --no-deps --disable-pip --strict

quick: .venv/test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not nightly"

docs: .venv/test
	$(BIN)/mkdocs build --strict

# One environment; each mark says that the packages of an extra are in it.
.venv/%: pyproject.toml setup.py $(wildcard src/rmiseg/kernels/native/*.cpp src/rmiseg/kernels/native/*.h)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --editable ".[$*]"
# Compiled from source, which not every machine can; its tests are left out where it fails.
	test $* != test || $(BIN)/uv pip install --python $(BIN)/python --editable ".[crf]" || true
	touch $@
