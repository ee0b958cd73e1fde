# The targets of CI (.ci/run), and those that are run by hand after a change of their kind; the Makefile includes this.
#
#   make test-demo  the demo, and whether it finds the nuclei
#   make try-readme the README's install lines, word for word, in a copy of the checkout and an empty environment
#   make test-cpp   the C++ tests of the headers, through CMake
#   make test-cmake the extension through CMake, as C++ developers have it
#   make sanitize   the tests of the ops under AddressSanitizer and UndefinedBehaviorSanitizer
#   make test-simt  the tests of the ops that have CUDA kernels against these kernels, emulated; in three schedules, or in
#                   those of SCHEDULES="forward 7"
#   make test-simt-race, make test-simt-asan: the same in the race detector and under AddressSanitizer
#   make test-simt-smoke  the part that is marked `smoke`, in the other schedules and in both of these
#   make test-simt-mutants  kernels without one of their barriers or atomics: the tests must notice
#   make test-cuda-build  the extension with CUDA loads, every op has its kernels, and none of them spills on the chip that
#                   it is built for; needs nvcc, no GPU
#   make cuda-report  registers, shared memory and occupancy of every kernel on seven chips; needs nvcc, no GPU
#   make fuzz-data  2,000 spoilt data sets through audit, training, evaluation and prediction
#   make fuzz-ops   a million random calls of the ops under the sanitizers
.PHONY: test-demo try-readme test-cpp test-cmake sanitize simt-build test-simt test-simt-race test-simt-asan test-simt-smoke \
	test-simt-mutants test-cuda-build cuda-report fuzz-data fuzz-ops

# Tests of the ops are many and use one core each: as many at once as there are cores. The trainer's are not run so, they
# have threads and processes of their own. CI sets it to nothing, it has steps beside each other.
AT_ONCE ?= -n $(shell getconf _NPROCESSORS_ONLN)

# The tests of the files with kernels. Once is enough for torch.compile, export and opcheck: schedules are nothing to them.
SIMT_STEMS := $(sort $(shell sed -n 's|^ops/.*/\(.*\)_kernels\.cu$$|\1|p' csrc/sources.txt))
SIMT_TESTS := $(sort $(wildcard $(SIMT_STEMS:%=tests/ops/test_%*.py)))
SIMT_PYTEST := $(BIN)/pytest $(AT_ONCE) -m "not slow" --capture=sys $(SIMT_TESTS)
UNTRACED := -k "not compile and not export and not opcheck"
ASAN := LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1

test-demo: demo
	$(BIN)/python tests/installed/try_demo.py runs/demo/metrics.json

CMAKE_BUILD := build/cmake
configure = cmake -S . -B $(CMAKE_BUILD) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DPython_EXECUTABLE=$(abspath $(BIN))/python
test-cpp: $(VENV)/.installed
	$(configure)
	cmake --build $(CMAKE_BUILD) --target cpp_tests
	ctest --test-dir $(CMAKE_BUILD) --output-on-failure

test-cmake: $(VENV)/.installed
	$(configure)
	cmake --build $(CMAKE_BUILD) --target polarmask_ops
	cd $(CMAKE_BUILD) && $(abspath $(BIN))/python -c 'import torch, _C; print(_C.build_info())'

# The sanitizers' copy of the package lies before the editable one on the path.
OPS_TESTS = $(filter-out %_inductor.py, $(wildcard tests/ops/test_*.py tests/ops/common/test_*.py)) tests/test_examples.py
sanitize: $(VENV)/.installed
	POLARMASK_SANITIZE=1 POLARMASK_CUDA=0 $(BIN)/python setup.py --quiet build --build-base build/sanitize --build-lib build/sanitize/lib
	$(ASAN) PYTHONPATH=build/sanitize/lib $(BIN)/pytest $(AT_ONCE) -m "not slow" --capture=sys $(UNTRACED) $(OPS_TESTS)

test-simt test-simt-race test-simt-asan test-simt-smoke: export POLARMASK_BACKEND = simt
simt-build: $(VENV)/.installed
	$(BIN)/python tests/simt/simt_build.py plain race asan

SCHEDULES ?= forward backward 1
in_schedule = PYTHONPATH=build/simt/plain POLARMASK_SIMT_SCHEDULE=$(1) $(SIMT_PYTEST)
test-simt: $(VENV)/.installed
	$(BIN)/python tests/simt/simt_build.py plain
	$(call in_schedule,$(firstword $(SCHEDULES)))
	set -e; $(foreach schedule,$(wordlist 2,99,$(SCHEDULES)),$(call in_schedule,$(schedule)) $(UNTRACED);)

test-simt-race: $(VENV)/.installed
	$(BIN)/python tests/simt/simt_build.py race
	PYTHONPATH=build/simt/race POLARMASK_SIMT_SCHEDULE=1 $(SIMT_PYTEST) $(UNTRACED)

test-simt-asan: $(VENV)/.installed
	$(BIN)/python tests/simt/simt_build.py asan
	$(ASAN) PYTHONPATH=build/simt/asan $(SIMT_PYTEST) $(UNTRACED)

test-simt-smoke: simt-build
	$(call in_schedule,backward) -m smoke
	$(call in_schedule,1) -m smoke
	PYTHONPATH=build/simt/race POLARMASK_SIMT_SCHEDULE=1 $(SIMT_PYTEST) -m smoke
	$(ASAN) PYTHONPATH=build/simt/asan $(SIMT_PYTEST) -m smoke

test-simt-mutants: $(VENV)/.installed
	$(BIN)/python tests/simt/mutate.py

# A copy of the package of its own, as `make sanitize` has one.
test-cuda-build: $(VENV)/.installed
	NVCC_APPEND_FLAGS="-Xptxas=-warn-spills,-warn-lmem-usage,-Werror" POLARMASK_CUDA=1 TORCH_CUDA_ARCH_LIST=9.0 $(BIN)/python setup.py --quiet build --build-base build/cuda --build-lib build/cuda/lib
	PYTHONPATH=build/cuda/lib $(BIN)/python tests/installed/try_cuda_build.py

cuda-report: $(VENV)/.installed
	$(BIN)/python benchmarks/cuda_report.py

try-readme:
	$(PYTHON) tests/installed/try_readme_install.py build/readme

FUZZ_SEEDS ?= 0 2000
fuzz-data: setup
	$(BIN)/python tests/fuzz_data.py --seeds $(FUZZ_SEEDS) --processes $(shell getconf _NPROCESSORS_ONLN)

FUZZ_CALLS ?= 1000000
fuzz-ops: export POLARMASK_BACKEND = simt
fuzz-ops: $(VENV)/.installed
	$(BIN)/python tests/simt/simt_build.py asan
	$(ASAN) PYTHONPATH=build/simt/asan $(BIN)/python tests/ops/common/fuzz_ops.py --calls $(FUZZ_CALLS) --progress build/fuzz_ops.call
