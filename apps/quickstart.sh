#!/usr/bin/env bash
# The main job from nothing: install, build, train the tokenizer, pre-train, fine-tune, report.
# Run again it keeps what is done. Extra arguments are configuration overrides, for example finetune.seeds=1
set -euo pipefail
cd "$(dirname "$0")/.."
bash apps/install.sh
echo "== building build/release/tessera" >&2
cmake --preset release > /dev/null
cmake --build build/release --target tessera -j "$(nproc)" | tail -n 1 >&2

tessera=build/release/tessera
$tessera train-tokenizer -c apps/presets/quickstart.toml "$@"
$tessera pretrain -c apps/presets/quickstart.toml "$@"
$tessera generate -c apps/presets/quickstart.toml "$@"
$tessera finetune -c apps/presets/quickstart.toml "$@"

[ -d .venv ] || python3 -m venv .venv
.venv/bin/pip install -q -r apps/python/requirements-report.txt
run=runs/quickstart
for override in "$@"; do
  case $override in run.directory=*) run=${override#*=} ;; esac
done
$tessera report "$run" --python .venv/bin/python > /dev/null
echo "table:  $run/table.csv"
echo "report: $run/report.html"
