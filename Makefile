# make run        install what is missing, then train and sample the quickstart model
# make test       the fast tests; make test-slow the others
# make lint       ruff, mypy and the import contract
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread a test process: two of two threads each would wait for one another.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -q

.PHONY: run test test-slow lint install
run: install
	$(BIN)/python -m experiments.run fit --config experiments/configs/lm/quickstart.yaml

test: install
	$(TEST)

test-slow: install
	$(TEST) -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
