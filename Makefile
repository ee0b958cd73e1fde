# Every target sets up what it needs: a bare machine with Python >= 3.10 and a C++20 compiler is enough.
#
#   make demo       train on one half of a microscopy image, evaluate on the other, write pictures
#   make test       the tests; TESTS=tests/model runs a part of them, MARKED="not long" the slow ones too
#   make test-all   all tests, the long ones too: full-size networks, large images, whole trainings
#   make lint       ruff, mypy, clang-format, and gcc's check that no two sources define one name differently
#   make bench      the benchmarks beside their peers, tables and charts under benchmarks/results/
#   make wheel      a source distribution and a wheel under dist/, tried in an empty environment
#   make test-gpu   on a machine with a GPU: the tests on it, values checked too, compute-sanitizer
#   make bench-gpu  on a machine with a GPU: the ops beside torch and torchvision there, and beside their floors
#   make clean      removes what was built
#
# tests/checks.mk has the targets of CI and those that are run by hand: sanitizers, emulated kernels, C++ tests, fuzzing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STARDIST := .cache/stardist
SOURCES := $(shell find csrc -type f) setup.py
TORCH := torch>=2.13,<2.15
BUILD_TOOLS := "setuptools>=77" ninja "pybind11>=2.13" "$(TORCH)"

# Threads that wait by spinning make training five times slower on a machine that does something else too.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup demo test test-all lint bench wheel test-gpu bench-gpu clean
setup: $(VENV)/.built

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "make: expected Python >= 3.10, got " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(BUILD_TOOLS)
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[train,test,dev]"
	@touch $@

$(VENV)/.built: $(VENV)/.installed $(SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace
	@$(BIN)/python -m polarmask_ops
	@touch $@

demo: setup
	$(BIN)/python -m polarmask.train --config nuclei --out runs/demo --overwrite

TESTS ?=
MARKED ?= not slow and not long
test: setup $(STARDIST)
	PYTHONPATH=$(STARDIST) $(BIN)/pytest -m "$(MARKED)" $(TESTS)

test-all: setup $(STARDIST)
	PYTHONPATH=$(STARDIST) $(BIN)/pytest

# StarDist's compiled functions without what its package as a whole needs. No wheel: its tests are skipped, its rows empty.
$(STARDIST): $(VENV)/.installed
	-$(BIN)/pip install --quiet --upgrade --no-deps --only-binary=:all: --target $@ stardist==0.9.2
	@mkdir -p $@ && touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[bench]"
	@touch $@

BENCH := -o python_files="bench_*.py" -o python_functions="bench_*" -o addopts=--import-mode=importlib -o timeout=900
# As users have their threads, who set nothing.
bench: setup $(VENV)/.bench $(STARDIST)
	@mkdir -p .benchmarks
	env -u OMP_WAIT_POLICY $(BIN)/pytest benchmarks $(BENCH) --benchmark-json=.benchmarks/run.json --benchmark-columns=min,median,rounds
	$(BIN)/python benchmarks/report.py .benchmarks/run.json benchmarks/results README.md

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')
	$(BIN)/mypy
	$(BIN)/python tests/simt/simt_build.py odr

# The sanitizer takes minutes for what takes a second: the smoke tests, of the kernels against the CPU loops.
SANITIZER = $(shell command -v compute-sanitizer || echo "$${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
test-gpu: setup $(STARDIST)
	@$(BIN)/python benchmarks/gpu_here.py $@
	PYTHONPATH=$(STARDIST) $(BIN)/pytest -m "not slow and not long"
	POLARMASK_CHECK=1 $(BIN)/pytest -m "not slow" $(filter-out %_cuda_graphs.py, $(OPS_TESTS))
	$(SANITIZER) --tool memcheck --error-exitcode 1 $(BIN)/python -m pytest -m smoke $(OPS_TESTS)
	$(SANITIZER) --tool racecheck --error-exitcode 1 $(BIN)/python -m pytest -m smoke $(OPS_TESTS)

bench-gpu: setup $(VENV)/.bench
	@$(BIN)/python benchmarks/gpu_here.py $@
	$(BIN)/python benchmarks/gpu.py benchmarks/results

wheel: $(VENV)/.installed
	rm -rf dist
	$(BIN)/python -m build --sdist --no-isolation
	$(BIN)/python -m build --wheel --no-isolation
	test -d build/readme/env || $(MAKE) try-readme
	build/readme/env/bin/pip install --quiet --no-deps --force-reinstall dist/*.whl
	cd build/readme && env/bin/python -m polarmask_ops && env/bin/python ../../tests/installed/try_install.py

clean:
	rm -rf build dist $(VENV)/.built polarmask_ops/*.so

include tests/checks.mk
