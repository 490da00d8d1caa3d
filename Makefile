# What a person types; `make run` and `make test` need nothing but Python 3.11+ and make.

VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The first interpreter that is new enough; PYTHON=… chooses another.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach name,python3 python3.11 python3.12 python3.13,\
	$(shell $(name) -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo $(name))))

.PHONY: help run test bench chaos soak load lint types layers lock clean

help:
	@echo "make run      collect live ticks, from an empty machine (ARGS=\"--seconds 60\" for options)"
	@echo "make test     run the whole test suite, against a QuestDB of its own (ARGS=\"-k name\" for pytest)"
	@echo "make bench    measure speed and memory"
	@echo "make chaos    break everything by a seed and judge what is left (SEED=1 SEEDS=1 SECONDS=60)"
	@echo "make soak     collect 20,000 rows a second and look at what creeps (MINUTES=30)"
	@echo "make load     a flood with an outage in its middle, and a backlog of ten million rows"
	@echo "make lint     check style       make types    check types       make layers   check imports"
	@echo "make lock     lock the dependencies again"

run: $(RUN)
	@$(BIN)/collector run $(ARGS)

test: $(DEV)
	@$(BIN)/python -m pytest -q $(ARGS)

bench: $(DEV)
	@$(BIN)/python -m bench $(ARGS)

chaos: $(DEV)
	@$(BIN)/python -m trials.chaos --seed $(or $(SEED),1) --seeds $(or $(SEEDS),1) --seconds $(or $(SECONDS),60) $(ARGS)

soak: $(DEV)
	@$(BIN)/python -m trials.soak --minutes $(or $(MINUTES),30) $(ARGS)

load: $(DEV)
	@$(BIN)/python -m trials.load flood $(ARGS)
	@$(BIN)/python -m trials.load backlog $(ARGS)

lint: $(DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(DEV)
	@$(BIN)/mypy

layers: $(DEV)
	@$(BIN)/lint-imports --no-cache

$(BIN)/python:
ifeq ($(PYTHON),)
	@echo "error: no Python 3.11 or newer was found (looked for python3, python3.11, python3.12, python3.13)." >&2
	@echo "hint: install one, or say where it is: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2
	@exit 1
else
	@echo "Making $(VENV) with $(PYTHON) …"
	@$(PYTHON) -m venv $(VENV)
endif

$(RUN): requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing the locked dependencies …"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(DEV): requirements-dev.lock $(RUN)
	@echo "Installing what the tests need …"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

# One lock for every system and Python version; names no index, so that any can serve it.
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-emit-find-links

lock: $(DEV)
	@$(LOCK) --all-extras -o requirements-dev.lock pyproject.toml
	@$(LOCK) --extra build --extra research --extra dashboard --extra backtest -c requirements-dev.lock -o requirements.lock pyproject.toml

clean:
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
