#!/usr/bin/env bash
# Builds the C++ core for 64-bit Arm and, where qemu is installed, runs its tests.
#   tools/cross.sh [JOBS]
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${1:-2}

missing=()
command -v aarch64-linux-gnu-g++ >/dev/null || missing+=(g++-aarch64-linux-gnu)
command -v qemu-aarch64-static >/dev/null || command -v qemu-aarch64 >/dev/null ||
  missing+=(qemu-user-static)
if ((${#missing[@]})) && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "== cross: apt-get install ${missing[*]}"
  apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" > /dev/null || true
fi
command -v aarch64-linux-gnu-g++ >/dev/null || {
  echo "error: no compiler for 64-bit Arm; as root: apt-get install g++-aarch64-linux-gnu" >&2
  exit 1
}

cmake -S . -B build/cross -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake \
  -DBIRTHMARK_TESTS=ON -DBIRTHMARK_WERROR=ON
cmake --build build/cross -j "$jobs"
if command -v qemu-aarch64-static >/dev/null || command -v qemu-aarch64 >/dev/null; then
  ctest --test-dir build/cross --output-on-failure -j "$jobs"
else
  echo "== cross: built; no qemu-aarch64 here, so the tests were not run"
fi
