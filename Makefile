# Every target makes .venv and installs what it needs when that is missing, and says so.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := pipeline sr_module detection

.PHONY: install demo test test-slow check bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       the whole main job on built-in scenes (CPU, minutes) -> srdet-demo/"
	@echo "make test       the tests (under ten minutes on two cores)"
	@echo "make test-slow  the tests that take longer"
	@echo "make check      ruff, mypy, import rule"
	@echo "make bench      speed and memory figures; names the benchmarks that run alone"
	@echo "make install    .venv with everything"

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "==> setting up .venv (about 6 GB with torch; a minute or two, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --group dev --editable .
	@touch $@

demo: install
	$(BIN)/srdet demo

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu"

test-slow: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not gpu" $(PYTEST)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build srdet-demo .mypy_cache .ruff_cache .pytest_cache
