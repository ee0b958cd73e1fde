# Every target sets up what it needs: a bare machine with Python >= 3.10 and a C++20 compiler is enough.
#
#   make demo       train on one half of a microscopy image, evaluate on the other, write pictures
#   make test       the tests (make test-all: the slow ones too)
#   make lint       ruff, mypy, clang-format
#   make test-cpp   the C++ tests of the headers, through CMake
#   make sanitize   the tests of the ops under AddressSanitizer and UndefinedBehaviorSanitizer
#   make wheel      a wheel under dist/, installed in a clean environment and tried there
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find csrc -type f) setup.py
TORCH := torch>=2.13,<2.15
BUILD_TOOLS := "setuptools>=77" wheel ninja "pybind11>=2.13" numpy "$(TORCH)"

# Only for the chips that are here; a wheel is built for all.
GPUS := $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sort -u | paste -sd';')
ifneq ($(GPUS),)
export TORCH_CUDA_ARCH_LIST ?= $(GPUS)
else
export POLARMASK_CUDA ?= 0
endif

.PHONY: setup demo test test-all lint test-cpp sanitize wheel clean
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
	$(BIN)/python -m polarmask.train --config nuclei --out runs/demo

test: setup
	$(BIN)/pytest -m "not slow"

test-all: setup
	$(BIN)/pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')
	$(BIN)/mypy

test-cpp: $(VENV)/.installed
	cmake -S . -B build/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DPython_EXECUTABLE=$(abspath $(BIN))/python
	cmake --build build/cmake
	ctest --test-dir build/cmake --output-on-failure

# The sanitizers' copy of the package lies before the editable one on the path.
sanitize: $(VENV)/.installed
	POLARMASK_SANITIZE=1 POLARMASK_CUDA=0 $(BIN)/python setup.py --quiet build --build-base build/sanitize --build-lib build/sanitize/lib
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 \
	UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=build/sanitize/lib $(BIN)/pytest -m "not slow" --capture=sys $(OPS_TESTS)

wheel: $(VENV)/.installed
	rm -rf dist build/wheel
	$(BIN)/python -m build --wheel --no-isolation
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/pip install --quiet dist/*.whl
	cd build/wheel && bin/python -m polarmask_ops && bin/python ../../tests/try_wheel.py

clean:
	rm -rf build dist $(VENV)/.built polarmask_ops/*.so
