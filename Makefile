# The two commands of a newcomer: `make demo` and `make test`. Both do all the set-up on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
# Processes that share the tests (0: none but this one), a whole file each, in order: what a file shares is made once.
WORKERS ?= 2
# uv does not read pip's own setting for a folder of wheels; hand it over.
UV_INSTALL := UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt

.PHONY: demo test test-slow lint clean

demo: .venv/.core
	$(BIN)/neuromill demo

test: .venv/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-slow: .venv/.dev
	$(BIN)/python -m pytest -m slow

lint: .venv/.dev
	$(BIN)/ruff format --check src flows tests benchmarks
	$(BIN)/ruff check src flows tests benchmarks docs
	$(BIN)/mypy

$(BIN)/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt uv

.venv/.core: $(BIN)/uv pyproject.toml constraints.txt
	$(UV_INSTALL) -e .
	@touch $@

.venv/.dev: $(BIN)/uv pyproject.toml constraints.txt
	$(UV_INSTALL) -e '.[dev]'
	@touch $@ .venv/.core

clean:
	rm -rf .venv
