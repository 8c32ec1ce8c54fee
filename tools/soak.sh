#!/usr/bin/env bash
# Makes a key, a claim and a mark, and has examples/serve/soak.py ask the service for so many minutes.
#   PYTHON=python tools/soak.sh MINUTES
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export BIRTHMARK_PASSPHRASE=soak OPENCV_LOG_LEVEL=SILENT
birthmark=("${PYTHON:-python3}" -m birthmark)
model=models/espcn_x2.onnx
"${birthmark[@]}" keygen -o "$work/key"
"${birthmark[@]}" claim --key "$work/key" --owner soak --model $model -o "$work/claim"
"${birthmark[@]}" provision --key "$work/key" --claim "$work/claim" -o "$work/mark"
"${PYTHON:-python3}" examples/serve/soak.py --model $model --mark "$work/mark" --minutes "$1" \
  tests/data/photos/eval
