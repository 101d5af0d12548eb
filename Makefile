# framemill: `make demo` and `make test` need Python 3.11+ and make, nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready

.PHONY: demo test lint docs bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   set up, then raw video to trained model, samples and report (demo/)"
	@echo "make test   set up, then run the tests"
	@echo "make lint   ruff and mypy"
	@echo "make docs   docs/tables.md and docs/cli.md, made from the code"
	@echo "make bench  the figures of infra/bench/RESULTS.md that need no GPU"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "framemill needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	@touch $@

demo: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" bash infra/demo.sh

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python infra/docs/generate.py

bench: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" bash infra/bench/run.sh

clean:
	rm -rf demo build
