# `make demo` and `make test` do all the set-up on a machine with only Python 3.11 or newer, then run.

PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin/python
READY  := $(VENV)/ready

# Exact versions of everything else are in requirements/locked.txt; torch's build is the index's or the machine's choice.
TORCH  := 2.13.0

# Most of the tests' time goes into compiling: a thread for each worker, and XLA's work kept for the next run. With a
# limit of size JAX locks that folder, so that no worker reads what another still writes.
TESTS  := OMP_NUM_THREADS=1 JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.3 \
          JAX_COMPILATION_CACHE_DIR=$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/twinnext/jax-tests \
          JAX_COMPILATION_CACHE_MAX_SIZE=8589934592

.PHONY: demo test newest lock reliability reference lint format types tables bench gpu minkowski aot slurm clean

# Pre-train on the embedded digits in both frameworks: minutes on a CPU.
demo: $(READY)
	$(RUN) -m train --backend torch
	$(RUN) -m train --backend jax

# PYTEST adds options, e.g. make test PYTEST='-k grn'.
test: $(READY)
	$(TESTS) $(RUN) -m pytest -n logical --maxprocesses 8 --dist worksteal $(PYTEST)

# The same tests with the newest versions that pyproject.toml allows, in an environment of its own.
NEWEST := .cache/newest
newest:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --editable '.[all]'
	$(NEWEST)/bin/python -m pip install --quiet --no-deps 'timm>=1.0.20'
	touch $(NEWEST)/ready
	$(MAKE) test VENV=$(NEWEST)

# Write requirements/ anew with the newest versions that work for every Python that we support; needs uv.
LOCK   := uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest \
          --generate-hashes --no-header --no-annotate
lock:
	$(LOCK) pyproject.toml requirements/extra.in --extra all --override requirements/override.txt \
	  --output-file requirements/locked.txt
	echo libtpu | $(LOCK) --no-deps - --output-file requirements/libtpu.txt

# Kill real runs of both frameworks at random moments and compare every bit; minutes.
reliability: $(READY)
	$(TESTS) $(RUN) -m pytest -m slow tests/train/test_reliability.py -s $(PYTEST)

# Train 200 steps in both frameworks and compare each loss with the recorded one; minutes.
reference: $(READY)
	$(TESTS) $(RUN) -m pytest -m slow tests/train/test_reference_losses.py $(PYTEST)

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(READY)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

types: $(READY)
	$(RUN) -m mypy

# Update the tables of docs/ that are computed from code.
tables: $(READY)
	$(RUN) -m tools.tables

bench: $(READY)
	$(RUN) -m benchmarks engines --part encoder

# All that waits for a GPU: a table of whole steps, whose rows hold their memory side by side in 140 GB, and the tests.
# GPU changes it, e.g. for a device of 80 GB: make gpu GPU='--batch_size 128'.
gpu: $(READY)
	mkdir -p runs
	$(RUN) -m benchmarks gpu --json runs/gpu.json --markdown runs/gpu.md $(GPU)
	XLA_PYTHON_CLIENT_PREALLOCATE=false $(RUN) -m pytest -m gpu -n 4 -p no:benchmark

# The optional third engine of torch, compiled once for this Python and torch.
minkowski: $(READY)
	$(RUN) tools/minkowski.py

# Compile for a TPU that is not here. Its compiler is kept outside the environment: where jax finds it, jax looks for
# TPUs at every start. At optimization level O1 a block compiles in a third of the time.
aot: $(READY)
	test -d .cache/libtpu || $(RUN) -m pip install --quiet --no-deps --require-hashes \
	  --target .cache/libtpu -r requirements/libtpu.txt
	JAX_OPTIMIZATION_LEVEL=O1 JAX_PLATFORMS=cpu PYTHONPATH=.cache/libtpu $(RUN) -m pytest -m aot -s tests/benchmarks/test_tpu.py tests/jax

# A real SLURM, all of it on this machine; needs root and Debian's slurm-wlm and munge.
slurm: $(READY)
	$(TESTS) $(RUN) -m pytest -m slurm tests/cluster

# Nothing here asks an index for its newest: the list has every package, torch pins its own, and hatchling builds
# with what the list has brought.
# timm asks for torchvision, which it does not need for our tests; hence no warnings.
$(READY): pyproject.toml requirements/locked.txt
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("$(PYTHON) is older than 3.11: give make another with PYTHON=python3.12")'
	@echo "Setting up $(VENV), once; it takes a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --no-deps --require-hashes -r requirements/locked.txt
	$(RUN) -m pip install --quiet --no-warn-conflicts torch==$(TORCH)
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
