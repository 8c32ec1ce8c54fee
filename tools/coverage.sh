#!/usr/bin/env bash
# Lines that the tests run: Python by pytest-cov, C++ by gcov (whose counts threads share). Not of the
# CUDA kernel, which has an emulator of its own, nor of the bindings, whose lines Python's tests run.
#   PYTHON=python tools/coverage.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
"$python" -m pip install -q pytest-cov gcovr
"$python" -m pytest -q --cov=birthmark --cov-report=term-missing:skip-covered
cmake -S . -B build/coverage -DBIRTHMARK_TESTS=ON -DBIRTHMARK_CUDA=OFF -DBIRTHMARK_ORT=OFF \
  -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS="--coverage -O1 -fprofile-update=atomic"
cmake --build build/coverage -j 2
# Counting calls the system, which hot_path forbids; the others are about libraries and cards.
ctest --test-dir build/coverage -E "hot_path|cuda_kernel|installed"
"$python" -m gcovr --root . --filter cpp/ --exclude cpp/cuda/ build/coverage --txt
