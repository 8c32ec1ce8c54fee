#!/usr/bin/env bash
# Python's tests of the native module, with the module under the address and undefined-behaviour
# sanitizers. Whatever else Python loads is not instrumented, so leaks are not looked for.
#   PYTHON=python JOBS=2 tools/sanitize_python.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python=$("${PYTHON:-python3}" -c "import sys; print(sys.executable)")  # CMake wants the whole path
build=build/sanitize-python
package=$build/package

cmake -S . -B $build -DBIRTHMARK_PYTHON=ON -DBIRTHMARK_LIBRARY=OFF -DBIRTHMARK_CUDA=OFF \
  -DBIRTHMARK_ORT=OFF -DBIRTHMARK_WERROR=ON -DBIRTHMARK_SANITIZE=address,undefined \
  -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)"
cmake --build $build -j "${JOBS:-2}" --target _core

# The package in the tree, with that module in it.
rm -rf $package && mkdir -p $package
cp -r python/birthmark $package/
rm -f $package/birthmark/*.so
cp $build/_core*.so $package/birthmark/

# The runtime has to come first in the process; Python itself does not link it.
runtime=$("${CXX:-g++}" -print-file-name=libasan.so):$("${CXX:-g++}" -print-file-name=libstdc++.so)
export LD_PRELOAD=$runtime ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
export PYTHONPATH=$PWD/$package OMP_NUM_THREADS=1 OPENCV_LOG_LEVEL=SILENT CI=true
# Another birthmark, an installed one say, would pass as well.
"$python" -c "import birthmark._core as core; assert core.__file__.startswith('$PWD/$package/')"
"$python" -m pytest -q -p no:cacheprovider tests/test_kernels_agree.py tests/test_embed_contract.py \
  tests/test_formats.py tests/test_formats_refused.py tests/test_tiles_and_streams.py "$@"
