# Two commands on a fresh machine: `make demo` and `make test`. The others are for people at work on sottovoce.
VENV ?= .venv
PYTHON_BIN = $(VENV)/bin/python
export SOTTOVOCE_VENV = $(VENV)
PACKAGES = -p sottovoce.runtime -p sottovoce.export -p sottovoce.calibration -p sottovoce.demos

.PHONY: demo test test-all test-gpu lint format types bench prepare clean

demo: prepare  ## answer a recorded question; leaves reply.wav
	@$(PYTHON_BIN) -m sottovoce.demos.first_answer

test: prepare lint types  ## formatting, lint, types, and every quick test
	@$(PYTHON_BIN) -m pytest

test-all: prepare lint types  ## also what is slow or needs devices; says what it skipped and why
	@setup/prepare.sh audio
	@$(PYTHON_BIN) -m pytest -m "" -rs

# A device has no PyTorch, which other tests import: these lie by themselves, and take a bundle from
# SOTTOVOCE_GPU_BUNDLE there.
test-gpu: prepare  ## what needs an NVIDIA GPU and TensorRT: ids, parity, memory, and a table of times
	@$(PYTHON_BIN) -m pytest -m gpu -rs tests/gpu

lint: prepare
	@$(PYTHON_BIN) -m ruff check .
	@$(PYTHON_BIN) -m ruff format --check .

format: prepare
	@$(PYTHON_BIN) -m ruff check --fix .
	@$(PYTHON_BIN) -m ruff format .

# The packages are folders at the root: the link gives mypy the name they are imported by.
types: prepare
	@mkdir -p .lint && ln -sfn .. .lint/sottovoce
	@MYPYPATH=.lint $(PYTHON_BIN) -m mypy --namespace-packages --explicit-package-bases $(PACKAGES)

bench: prepare  ## every comparison, into out/bench/tables.md; QUICK=1: under ten minutes
	@setup/prepare.sh bench
	@$(PYTHON_BIN) tests/benchmarks/suite.py $(if $(QUICK),--quick)

prepare:
	@setup/prepare.sh

clean:
	rm -rf .lint .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist out reply.wav
