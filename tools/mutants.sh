#!/usr/bin/env bash
# Mutation testing of the modules that a court relies on.
#   PYTHON=python tools/mutants.sh SAMPLE
set -euo pipefail
cd "$(dirname "$0")/.."
python=$("${PYTHON:-python3}" -c "import sys; print(sys.executable)")  # the whole path: see the cd below
# The package in the tree, with the native module that is installed and the models.
built=$(cd / && env -u PYTHONPATH "$python" -c 'import birthmark._core as c; print(c.__file__)')
package=build/mutants
rm -rf $package && mkdir -p $package
cp -r python/birthmark $package/
rm -f $package/birthmark/*.so
cp "$built" $package/birthmark/
ln -s "$PWD/models" $package/birthmark/data/models
export PYTHONPATH=$PWD/$package OPENCV_LOG_LEVEL=SILENT
"$python" tools/mutants.py claim --sample "$1" tests/test_claim.py tests/test_stamp.py
"$python" tools/mutants.py keys --sample "$1" tests/test_keys.py tests/test_shares.py
"$python" tools/mutants.py exact_tests --sample "$1" tests/test_exact_tests.py tests/test_verdict.py tests/test_bundle.py
"$python" tools/mutants.py verdict --sample "$1" tests/test_{exact_tests,verdict,bundle,trial,stamp}.py
"$python" tools/mutants.py controls --sample "$1" tests/test_{references,exact_tests,trial}.py
"$python" tools/mutants.py trial --sample "$1" tests/test_trial.py
