# make quickstart: install, then run recipes/grpo.py to its report.   make test: install, then the tests, on two cores.
# make nightly: what takes longer (hours): training to the floors, which writes docs/floors.md, ten kills of each kind of
# run, large presets, ten times as many examples of each property, and the lower bounds of the requirements.
PYTHON ?= python3.11
BIN := .venv/bin
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: quickstart test nightly lint docs benchmarks clean

quickstart: .venv/installed
	$(BIN)/accelerate launch --quiet recipes/grpo.py

test: .venv/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS)

nightly: .venv/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS) -m "nightly or hypothesis" --hypothesis-profile nightly
	.ci/lower-bounds

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy hf_synth

docs: runs/quickstart/report.md
	mkdir -p docs/quickstart/figures
	cp runs/quickstart/report.md docs/quickstart/README.md
	cp runs/quickstart/figures/*.png docs/quickstart/figures/

benchmarks: .venv/installed-test
	$(BIN)/python benchmarks/sampling.py
	$(BIN)/python benchmarks/density.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/training.py

# Without a GPU the CPU build of torch, where the index has one; with a GPU the index's own build.
.venv/torch: constraints.txt
	$(PYTHON) -m venv .venv
	command -v nvidia-smi >/dev/null 2>&1 || $(PIP) "torch==2.13.0+cpu" 2>/dev/null || true
	$(PIP) -c constraints.txt torch
	touch $@

.venv/installed: .venv/torch pyproject.toml
	$(PIP) -c constraints.txt -e ".[metrics]"
	touch $@

.venv/installed-test: .venv/torch pyproject.toml
	$(PIP) -c constraints.txt -e ".[test,dev,trackers]"
	touch .venv/installed $@

clean:
	rm -rf .venv build *.egg-info

# Mistakes planted in a copy of the checkout, each caught by its tests.
.PHONY: faults
nightly: faults

faults: .venv/installed-test
	$(BIN)/python tests/faults/run.py
