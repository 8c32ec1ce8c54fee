#!/usr/bin/env bash
# The bill of materials: every Python package that birthmark needs to run, in a fresh environment, as
# CycloneDX JSON, and their licences as text.
#   tools/sbom.sh FOLDER VENV
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 venv=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip=("$venv/bin/python" -m pip --disable-pip-version-check -q)

"$venv/bin/python" -m venv "$work/run"
"$venv/bin/python" tools/requirements.py run > "$work/run.txt"
"${pip[@]}" --python "$work/run/bin/python" install -r "$work/run.txt"
"$venv/bin/python" -m venv "$work/tool"
"${pip[@]}" --python "$work/tool/bin/python" install cyclonedx-bom
mkdir -p "$folder"
"$work/tool/bin/cyclonedx-py" environment "$work/run/bin/python" --pyproject pyproject.toml \
  --output-reproducible --of JSON -o "$folder/sbom.json"
"$venv/bin/python" tools/licences.py "$folder/sbom.json" | tee "$folder/licences.txt"
