#!/usr/bin/env bash
# Installs packages into a virtual environment: those of a lock (tools/lock.py), to the byte, on the
# kind of machine that it is for, and elsewhere whatever satisfies a list of ranges.
#   tools/install.sh VENV LOCK RANGES
# A file that is not the one in the lock stops everything. What the lock names and cannot be had here
# (a mirror that lacks a version, say) does not: the ranges are taken, and it is said.
set -euo pipefail
venv=$1 lock=$2 ranges=$3
pip=("$venv/bin/python" -m pip --disable-pip-version-check -q)

fits() {
  "$venv/bin/python" -c 'import platform, sys
sys.exit(not (sys.implementation.name == "cpython" and sys.version_info[:2] == (3, 11)
              and sys.platform == "linux" and platform.machine() == "x86_64"
              and platform.libc_ver()[0] == "glibc"))'
}

if fits; then
  if said=$("${pip[@]}" install --require-hashes -r "$lock" 2>&1); then
    [ -z "$said" ] || echo "$said"
  elif grep -q "DO NOT MATCH THE HASHES" <<< "$said"; then
    echo "$said" >&2
    exit 1
  else
    echo "== not as in $lock ($(grep -m1 ERROR <<< "$said" || echo "$said" | tail -n1)): versions may differ"
  fi
fi
# Nothing is left to do where the lock was installed.
"${pip[@]}" install -r "$ranges"
