# make demo, make test, make bench, make lint: each makes .venv when it is not there, and installs what it needs;
# make bench-peers makes .venv-peers, too.

PYTHON ?= python3
TORCH ?= 2.13.0
VENV ?= .venv
PEERS ?= .venv-peers
BUILD := build/dev

python := $(VENV)/bin/python
pip := $(python) -m pip install --quiet
peers_pip := $(PEERS)/bin/python -m pip install --quiet
# The environment's own cmake and ninja, whatever the machine has.
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: build peers demo test test-cpp test-sanitize test-python test-emulated test-sanitize-emulated test-peers test-neon \
    test-torch-versions bench bench-peers lint format clean

demo: build $(VENV)/extra-demo
	$(python) -m torch_iir.demo

test: test-cpp test-sanitize test-python

bench: build $(VENV)/extra-bench
	$(python) -m bench

bench-peers: peers
	$(PEERS)/bin/python -m bench --peers

# --- the environment

$(VENV)/torch-$(TORCH):
	test -x $(python) || $(PYTHON) -m venv $(VENV)
	$(pip) torch==$(TORCH) numpy  # first, so that nothing below brings another
	$(pip) scikit-build-core pybind11 cmake ninja
	rm -f $(VENV)/torch-* $(VENV)/extra-* $(VENV)/installed
	touch $@

in_build := --no-build-isolation --config-settings=build-dir=$(BUILD) \
    --config-settings=cmake.define.TORCH_IIR_TESTS=ON --config-settings=cmake.define.TORCH_IIR_WERROR=ON

# Editable: Python files are used where they lie, what is compiled goes from $(BUILD) to site-packages.
$(VENV)/installed: $(VENV)/torch-$(TORCH) pyproject.toml
	$(pip) $(in_build) --editable .
	rm -f $(VENV)/extra-*
	touch $@

build: $(VENV)/installed
	cmake --build $(BUILD)
	cmake --install $(BUILD) --prefix "$$($(python) -c 'import sysconfig; print(sysconfig.get_path("platlib"))')" >/dev/null

# The package is installed already, so this adds what its extra lists; torchlpc is compiled, against the torch that is here.
$(VENV)/extra-%: $(VENV)/installed
	$(pip) --no-build-isolation 'torch_iir[$*]'
	touch $@

# Without its compiled part torchaudio works beside any torch: filters are a loop in Python then, for few samples. It lies
# where only those tests look that want it.
$(VENV)/extra-test: $(VENV)/torchaudio
$(VENV)/torchaudio: $(VENV)/torch-$(TORCH)
	rm -rf $@
	$(pip) --no-deps --target $@ torchaudio==2.11.0
	rm $@/torchaudio/lib/*.so

# torchaudio links CUDA's libraries: it needs the torch that comes with them, 5 GB in all, and works beside its own version
# alone.
$(PEERS)/torchaudio-2.11.0:
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(peers_pip) torch==2.11.0 torchaudio==2.11.0 numpy scipy
	touch $@

# Packed from what is compiled already.
peers: build $(PEERS)/torchaudio-2.11.0
	rm -rf build/peers
	$(python) -m pip wheel --quiet --no-deps $(in_build) --wheel-dir build/peers .
	$(peers_pip) --no-deps --force-reinstall build/peers/*.whl

# --- tests

test-cpp: build
	ctest --test-dir $(BUILD) --output-on-failure --parallel 2

# The kernels and their tests, with neither torch nor Python.
cmake_core := cmake -S . -G Ninja -DTORCH_IIR_TESTS=ON -DTORCH_IIR_CUDA=OFF

cmake_sanitize := $(cmake_core) -DTORCH_IIR_SANITIZE=ON -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="-O1 -g1"
test-sanitize: $(VENV)/torch-$(TORCH)
	$(cmake_sanitize) -B build/sanitize -DTORCH_IIR_EMULATOR=OFF >/dev/null
	cmake --build build/sanitize
	ctest --test-dir build/sanitize --output-on-failure --parallel 2

# What reads and writes where it must not in the kernels for CUDA.
test-sanitize-emulated: $(VENV)/torch-$(TORCH)
	$(cmake_sanitize) -B build/sanitize -DTORCH_IIR_EMULATOR=ON >/dev/null
	cmake --build build/sanitize
	ctest --test-dir build/sanitize --output-on-failure --parallel 2 --tests-regex "cuda|emulator"

# A process on each core; more threads than that would wait for each other.
test-python: build $(VENV)/extra-test
	OMP_NUM_THREADS=1 $(python) -m pytest --numprocesses auto --dist worksteal

# The operators for CUDA, on the emulator. Some of it is part of test-python.
test-emulated: build $(VENV)/extra-test
	TORCH_IIR_TEST_EMULATED=1 TORCH_IIR_TEST_DEVICE=cpu OMP_NUM_THREADS=1 $(python) -m pytest --numprocesses auto --dist worksteal

test-neon: $(VENV)/torch-$(TORCH)
	@command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || \
	    { echo "First: sudo apt-get install g++-aarch64-linux-gnu qemu-user"; exit 1; }
	$(cmake_core) -B build/neon -DTORCH_IIR_EMULATOR=OFF --toolchain native/cmake/aarch64-linux-gnu.cmake >/dev/null
	cmake --build build/neon
	ctest --test-dir build/neon --output-on-failure --parallel 2

# One wheel, built beside $(TORCH), passes the tests beside the oldest torch and the newest.
test-torch-versions: build
	rm -rf build/wheel
	$(python) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .
	for torch in torch==2.11.0 torch; do \
	    rm -rf build/other && $(PYTHON) -m venv build/other && \
	    build/other/bin/pip install --quiet $$torch && \
	    build/other/bin/pip install --quiet "$$(echo build/wheel/*.whl)[test]" && \
	    build/other/bin/python -c 'import torch; print("torch", torch.__version__)' && \
	    (cd tests && ../build/other/bin/pytest -p no:cacheprovider) || exit 1; \
	done

# What is tested beside torchaudio.
test-peers: peers
	$(peers_pip) "$$(echo build/peers/*.whl)[test]"
	cd tests && OMP_NUM_THREADS=1 ../$(PEERS)/bin/pytest -p no:cacheprovider $$(grep -l torchaudio test_*.py)

# --- style

cpp_files = $(shell git ls-files '*.h' '*.cpp' '*.cu')

lint: build $(VENV)/extra-lint
	ruff check
	ruff format --check
	clang-format --dry-run --Werror $(cpp_files)
	mypy

format: $(VENV)/extra-lint
	ruff check --fix
	ruff format
	clang-format -i $(cpp_files)

clean:
	rm -rf build dist
