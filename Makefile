# birthmark: two commands matter, `make demo` and `make test`. `make help` lists the rest.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
# Compiler warnings stop the build on a CI machine; a user's newer compiler may know more of them.
BIRTHMARK_WERROR ?= $(if $(CI),ON,OFF)
# Ninja only if it is there by itself; otherwise pip brings it along.
NINJA_WHEEL := $(if $(shell command -v ninja),,ninja)

CPP_FILES    := $(shell find cpp tests/cpp tests/fuzz tests/cuda_emulator bench examples -name '*.cc' -o -name '*.h' \
  -o -name '*.inc' -o -name '*.c' -o -name '*.cu' -o -name '*.cuh')
# What the installed package is made of: a change here installs it anew.
PACKAGE_FILES := pyproject.toml CMakeLists.txt README.md LICENSE \
  $(shell find cmake cpp python models -type f -not -path '*/__pycache__/*')

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help demo test lint format cpp-test python-test sanitize valgrind fuzz faults soak coverage mutants sbom cross bench docs wheel setup lock clean distclean
.DELETE_ON_ERROR:

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(VENV)/stamp-package ## protect a model, have it stolen, prove it
	$(BIN)/python -m birthmark.demo

test: lint cpp-test python-test ## linters, C++ tests, Python tests: everything that must pass

lint: $(VENV)/stamp-package $(VENV)/stamp-test ## ruff, mypy and clang-format, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP_FILES)

format: $(VENV)/stamp-test ## put every file into the house layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

cpp-test: ## C++ tests, with warnings as errors
	cmake -S . -B build/cpp -DBIRTHMARK_TESTS=ON -DBIRTHMARK_WERROR=ON
	cmake --build build/cpp -j $(JOBS)
	ctest --test-dir build/cpp --output-on-failure -j $(JOBS)

# As many files at a time as there are cores, in one thread each: tests of one file follow each other.
python-test: $(VENV)/stamp-package $(VENV)/stamp-test ## Python tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder \
	  $(PYTEST_ARGS)

sanitize: $(VENV)/stamp-test ## C++ tests and the native Python module under address, undefined-behaviour and thread sanitizers
	cmake -S . -B build/sanitize -DBIRTHMARK_TESTS=ON -DBIRTHMARK_WERROR=ON \
	  -DBIRTHMARK_SANITIZE=address,undefined
	cmake --build build/sanitize -j $(JOBS)
	ctest --test-dir build/sanitize --output-on-failure -j $(JOBS)
	PYTHON=$(BIN)/python JOBS=$(JOBS) tools/sanitize_python.sh
	cmake -S . -B build/sanitize-threads -DBIRTHMARK_TESTS=ON -DBIRTHMARK_WERROR=ON \
	  -DBIRTHMARK_SANITIZE=thread
	cmake --build build/sanitize-threads -j $(JOBS) --target test_threads
	ctest --test-dir build/sanitize-threads --output-on-failure -R '^threads$$'

MINUTES ?= 5
fuzz: $(VENV)/stamp-package $(VENV)/stamp-test ## hostile input for MINUTES (5) a target; C++ needs clang
	PYTHON=$(BIN)/python tools/fuzz.sh $(MINUTES)

valgrind: ## hostile pictures and the C interface under valgrind: reads of what was never written
	cmake -S . -B build/cpp -DBIRTHMARK_TESTS=ON -DBIRTHMARK_WERROR=ON
	cmake --build build/cpp -j $(JOBS)
	set -e; for target in mark_file embed stream; do \
	  valgrind -q --error-exitcode=9 build/cpp/replay_$$target tests/fuzz/corpus/$$target; done
	valgrind -q --error-exitcode=9 build/cpp/test_c_abi

KILLS ?= 50
faults: $(VENV)/stamp-package $(VENV)/stamp-test ## kill each long command KILLS (50) times, and everything else that may fail
	BIRTHMARK_KILLS=$(KILLS) $(BIN)/python -m pytest tests/test_faults.py

SOAK_MINUTES ?= 10
soak: $(VENV)/stamp-package $(VENV)/stamp-test ## the HTTP service under twice its load for SOAK_MINUTES (10)
	PYTHON=$(BIN)/python tools/soak.sh $(SOAK_MINUTES)

coverage: $(VENV)/stamp-package $(VENV)/stamp-test ## lines that tests run, Python and C++ (gcov)
	PYTHON=$(BIN)/python tools/coverage.sh

SAMPLE ?= 20
mutants: $(VENV)/stamp-package $(VENV)/stamp-test ## change SAMPLE (20) places each of claim, keys, tests and verdict: does a test notice?
	PYTHON=$(BIN)/python tools/mutants.sh $(SAMPLE)

sbom: $(VENV)/stamp-package ## dist/sbom.json (CycloneDX) and the licences of what is installed with it
	$(BIN)/python tools/sbom.py dist

cross: ## C++ tests for 64-bit Arm (needs g++-aarch64-linux-gnu; runs them with qemu-user-static)
	tools/cross.sh $(JOBS)

bench: $(VENV)/stamp-package $(VENV)/stamp-bench ## time the embedding against other ways, in one run
	set -e; for script in bench/bench_*.py; do echo "== $$script"; $(BIN)/python $$script; done

docs: $(VENV)/stamp-package $(VENV)/stamp-docs ## build the documentation into build/site
	$(BIN)/mkdocs build

wheel: ## build and try dist/: source distribution, wheel, and a wheel for 64-bit Arm
	PYTHON=$(PYTHON) tools/wheel.sh dist
	PYTHON=$(PYTHON) tools/wheel_aarch64.sh dist

lock: ## resolve tools/lock anew: what CI installs, to the byte
	$(PYTHON) tools/lock.py

setup: $(VENV)/stamp-package $(VENV)/stamp-test ## make .venv with the package and the test tools

clean: ## remove what was built; keep .venv
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f $(VENV)/stamp-package

distclean: clean ## remove .venv as well
	rm -rf $(VENV)

# Each stamp is the last time that step was done; it is repeated only when its inputs are newer.
$(VENV)/stamp-venv: tools/venv.sh tools/requirements.py
	@tools/venv.sh $(VENV) $(PYTHON)
	@touch $@

$(VENV)/stamp-build: $(VENV)/stamp-venv pyproject.toml tools/lock/run.txt tools/install.sh
	@echo "== build tools, and what birthmark needs"
	@$(BIN)/python tools/requirements.py build run > $(VENV)/build.txt
	@tools/install.sh $(VENV) tools/lock/run.txt $(VENV)/build.txt
	@$(if $(NINJA_WHEEL),$(PIP) install $(NINJA_WHEEL))
	@touch $@

# The operator for onnxruntime needs headers that no Python package has; without them it is left out.
$(VENV)/stamp-ort: $(VENV)/stamp-venv tools/ort_headers.sh
	@tools/ort_headers.sh $(VENV)/ort-headers || echo "== the operator for onnxruntime is left out"
	@touch $@

# Not isolated, so that the C++ build in build/ is taken up again and not begun anew.
$(VENV)/stamp-package: $(VENV)/stamp-build $(VENV)/stamp-ort $(PACKAGE_FILES)
	@echo "== birthmark itself"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install --no-build-isolation \
	  -C cmake.define.BIRTHMARK_WERROR=$(BIRTHMARK_WERROR) \
	  -C cmake.define.BIRTHMARK_ORT_INCLUDE=$(CURDIR)/$(VENV)/ort-headers .
	@touch $@

$(VENV)/stamp-test: $(VENV)/stamp-build pyproject.toml tools/lock/test.txt tools/install.sh
	@echo "== test tools"
	@$(BIN)/python tools/requirements.py test serve video docs > $(VENV)/test.txt
	@tools/install.sh $(VENV) tools/lock/test.txt $(VENV)/test.txt
	@touch $@

$(VENV)/stamp-docs: $(VENV)/stamp-venv pyproject.toml
	@echo "== what builds the documentation"
	@$(BIN)/python tools/requirements.py docs > $(VENV)/docs.txt
	@$(PIP) install -r $(VENV)/docs.txt
	@touch $@

# --no-deps: the compared methods, but for rivaGan, need neither torch nor a second OpenCV.
$(VENV)/stamp-bench: $(VENV)/stamp-venv pyproject.toml
	@echo "== rivals for the bench"
	@$(BIN)/python tools/requirements.py bench > $(VENV)/bench.txt
	@$(PIP) install --no-deps -r $(VENV)/bench.txt
	@touch $@
