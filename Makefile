# Two commands from a fresh clone: `make demo` and `make test`. Python 3.11 or newer, its venv, make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUNS ?= runs
SHARDS ?= shards

BENCHES := bench-step bench-ray bench-data bench-scale bench-sample bench-eval bench-scaling \
	bench-search bench-checkpoint bench-gpu
.PHONY: setup demo test test-ray test-without-ray check test-slow test-kills test-cluster test-all $(BENCHES) clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m cbdm_scale.train --dataset digits_lt --data.root $(SHARDS) --cluster.storage $(RUNS)

# One process for the tests that share a Ray cluster, which wait a lot, and two for the others.
test: $(READY)
	$(MAKE) --jobs 2 test-ray test-without-ray

# What is compiled is kept, whatever the environment says: all processes would compile it again.
test-ray test-without-ray: export PYTHONDONTWRITEBYTECODE =

test-ray: $(READY)
	$(BIN)/python -m pytest --ray only

test-without-ray: $(READY)
	$(BIN)/python -m pytest --ray without -n 2 --dist loadfile --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-kills: $(READY)
	$(BIN)/python -m pytest -m kills --timeout 3600

# Needs root and iproute2; says so and skips without.
test-cluster: $(READY)
	$(BIN)/python -m pytest -m cluster --timeout 3600 -rs

test-all: $(READY)
	$(BIN)/python -m pytest -m '' --timeout 3600

bench-step: $(READY)
	$(BIN)/python -m benchmarks.step

bench-ray: $(READY)
	$(BIN)/python -m benchmarks.ray_overhead

bench-data: $(READY)
	$(BIN)/python -m benchmarks.data

bench-scale: $(READY)
	$(BIN)/python -m benchmarks.scale

bench-sample: $(READY)
	$(BIN)/python -m benchmarks.sampling

bench-eval: $(READY)
	$(BIN)/python -m benchmarks.evaluation

bench-checkpoint: $(READY)
	$(BIN)/python -m benchmarks.checkpoint

bench-gpu: $(READY)
	$(BIN)/python -m benchmarks.gpu

bench-search: $(READY)
	$(BIN)/python -m benchmarks.search_overhead

bench-scaling: $(READY)
	$(BIN)/python -m benchmarks.scaling measure
	$(BIN)/python -m benchmarks.scaling predict
	$(BIN)/python -m benchmarks.scaling reporters

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
