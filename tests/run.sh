#!/usr/bin/env bash
# Installs, builds and runs every test; ends with ctest's summary.
set -euo pipefail
cd "$(dirname "$0")/.."
bash apps/install.sh
# The generator and the converter are Python; without their libraries those two tests are skipped, visibly.
[ -d .venv ] || python3 -m venv .venv
.venv/bin/pip install -q --only-binary :all: -r apps/python/requirements.txt \
  || echo "== Python libraries not installed: convert_test.py and simulate_test.py will be skipped" >&2
cmake --preset dev -DPython3_EXECUTABLE="$PWD/.venv/bin/python" "$@"
cmake --build build/dev -j "$(nproc)"
ctest --preset dev
