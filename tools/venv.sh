#!/usr/bin/env bash
# Makes a virtual environment with what it takes to build birthmark.
#   tools/venv.sh FOLDER [PYTHON]
# Needs Python 3.11 or newer with its venv module and C headers, g++, cmake and make. Installs the
# Debian packages of the first two by itself when it may (root and apt-get), and says so.
set -euo pipefail
folder=$1
python=${2:-python3}

fail() { echo "error: $*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "$python not found: install Python 3.11 or newer"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$("$python" --version) is too old: birthmark needs 3.11 (make PYTHON=/path/to/python3.11)"
for tool in "${CXX:-g++}" cmake make; do
  command -v "$tool" >/dev/null || fail "$tool not found (on Debian: apt-get install g++ cmake make)"
done

has_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }
has_headers() {
  "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))'
}
wanted=()
has_venv || wanted+=(python3-venv)
has_headers || wanted+=(python3-dev)
if ((${#wanted[@]})); then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "== $python lacks parts: apt-get install ${wanted[*]}"
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      "${wanted[@]}" > /dev/null || true
  fi
  if ! has_venv || ! has_headers; then
    fail "$python lacks its venv module or C headers; as root: apt-get install ${wanted[*]}"
  fi
fi

echo "== virtual environment in $folder"
rm -rf "$folder"
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install -q --disable-pip-version-check --upgrade pip
