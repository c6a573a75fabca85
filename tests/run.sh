#!/usr/bin/env bash
# Installs, builds and runs every test; ends with ctest's summary.
set -euo pipefail
cd "$(dirname "$0")/.."
bash apps/install.sh
cmake --preset dev "$@"
cmake --build build/dev -j "$(nproc)"
ctest --preset dev
