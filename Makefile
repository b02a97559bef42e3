# Two commands do everything on a fresh machine: `make search` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install search test test-slow lint site clean
install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "gpnas needs Python 3.11, 3.12 or 3.13; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

search: install
	$(BIN)/gpnas search --space drn.yaml $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/deptry tests --exclude none --ignore DEP002,DEP004

test: lint
	$(BIN)/pytest --numprocesses 3 --dist loadscope --durations 20 $(ARGS)

test-slow: install
	$(BIN)/pytest --numprocesses 3 --dist loadscope --durations 20 -m 'slow and not gpu' $(ARGS)

site: install
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist site
