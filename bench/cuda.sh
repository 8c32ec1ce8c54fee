#!/usr/bin/env bash
# The CUDA kernel on this machine's card: builds, compares bytes over all formats and sizes, looks for
# wrong accesses and races with compute-sanitizer where it is installed, and times it against a copy.
#   bench/cuda.sh [JOBS]
# Ends with 0 when all of it was done, 2 when there is no card (or no CUDA compiler), 1 on a defect.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${1:-2}

command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] || {
  echo "no CUDA compiler (nvcc): nothing was built, compared or timed"
  exit 2
}
echo "== build (build/cuda)"
cmake -S . -B build/cuda -DBIRTHMARK_CUDA=ON -DBIRTHMARK_TESTS=ON -DBIRTHMARK_WERROR=ON > /dev/null
cmake --build build/cuda -j "$jobs" --target bench_cuda --target test_cuda_kernel

echo "== the kernel's source in the emulator, on the processor"
build/cuda/test_cuda_kernel

echo "== on the card"
build/cuda/bench_cuda compare

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck initcheck; do
    echo "== compute-sanitizer --tool $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 1 build/cuda/bench_cuda compare
  done
else
  echo "== compute-sanitizer is not installed: not run"
fi

echo "== all sizes, and times"
build/cuda/bench_cuda
