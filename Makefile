# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# one thread: a model this small gains nothing from a second one, and everyone gets the same numbers
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint bench papers clean

demo: $(VENV)/installed
	$(BIN)/oneloop demo

test: $(VENV)/installed lint
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/pyright

bench: $(VENV)/installed
	$(BIN)/python benchmarks/step.py

papers: $(VENV)/installed
	$(BIN)/python -c "from oneloop.recipes.explain import papers_page; print(papers_page(), end='')" > docs/papers.md

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
