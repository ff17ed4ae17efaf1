#!/usr/bin/env bash
# Sets up the environment if needed and runs the checks of CI.
#
#   bash tools/run_tests.sh                          format, lint, types, spelling, and the unmarked tests
#   bash tools/run_tests.sh -m slow tests/...        pytest alone, with these arguments
#
# Tests of detection are skipped unless `bash tools/setup_env.sh` has built mmcv's compiled ops.
# NUM_WORKERS sets the number of parallel tests (default 2, at most the number of cores), if pytest-xdist is installed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh --no-ops
python=$(bash tools/setup_env.sh --print-python)

cores=$("$python" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)')
workers=${NUM_WORKERS:-2}
workers=$((workers < cores ? workers : cores))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / workers))}

if [[ $# -eq 0 ]]; then
    PYTHON=$python bash tools/lint.sh
fi

options=()
if [[ $workers -gt 1 ]] && "$python" -c 'import xdist' 2>/dev/null; then
    options+=(-n "$workers" --dist loadfile --no-loadscope-reorder)  # long files are not left for the end
fi
exec "$python" -m pytest ${options[@]+"${options[@]}"} "$@"
