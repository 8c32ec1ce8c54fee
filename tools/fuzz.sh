#!/usr/bin/env bash
# Fuzzes every target in turn for so many minutes: those in C++ where clang is, those in Python always.
# Findings of the C++ ones stay in build/fuzz as <target>-crash-*; Python prints the seed.
#   tools/fuzz.sh MINUTES
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$(awk -v minutes="$1" 'BEGIN { print int(60 * minutes) }')

if command -v clang++ > /dev/null; then
  CXX=clang++ cmake -S . -B build/fuzz -DBIRTHMARK_TESTS=ON -DBIRTHMARK_FUZZ=ON \
    -DBIRTHMARK_SANITIZE=address,undefined -DBIRTHMARK_CUDA=OFF -DBIRTHMARK_ORT=OFF
  for corpus in tests/fuzz/corpus/*; do
    target=$(basename "$corpus")
    cmake --build build/fuzz -j 2 --target "fuzz_$target"
    mkdir -p "build/fuzz/corpus/$target"  # what is found new goes there
    echo "== fuzz: $target"
    # The time-out is of the clock on the wall: a busy machine makes a second of work last minutes.
    "build/fuzz/fuzz_$target" -max_total_time="$seconds" -max_len=1024 -len_control=0 -timeout=1200 \
      -verbosity=0 -print_final_stats=1 -artifact_prefix="build/fuzz/$target-" \
      "build/fuzz/corpus/$target" "$corpus"
  done
else
  echo "== fuzz: no clang++ here (Debian: clang libclang-rt-14-dev), so the C++ targets are left out"
fi

echo "== fuzz: Python"
OPENCV_LOG_LEVEL=SILENT BIRTHMARK_FUZZ_SECONDS=$seconds "${PYTHON:-python3}" -m pytest tests/test_fuzz.py -s -q
