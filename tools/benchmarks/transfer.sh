#!/usr/bin/env bash
# Shared by detect.sh and segment.sh: bash transfer.sh SCRIPT CONFIG DEFAULT_PROCESSES [CKPT [PROCESSES] [options]]
set -euo pipefail

script=$1 config=$2 processes=$3
shift 3
usage() { sed -n '2,/^set -/{/^#/!d;s/^# \{0,1\}//;p;}' "$script"; }
wrong() {
    printf '%s: %s\n\n' "$(basename "$script")" "$1" >&2
    usage >&2
    exit 2
}
case ${1:-} in
-h | --help)
    usage
    exit 0
    ;;
'') wrong "a checkpoint is missing" ;;
-*) wrong "the checkpoint comes first, got $1" ;;
esac
checkpoint=$1
shift
if [[ $# -gt 0 && $1 != -* ]]; then
    [[ $1 =~ ^[1-9][0-9]*$ ]] || wrong "PROCESSES must be a number >= 1, got $1"
    processes=$1
    shift
fi

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
# Writes the complete backbone and a config with its depth, width and normalisation.
written=$("${PYTHON:-python}" "$tools/benchmarks/transfer_config.py" "$config" "$checkpoint" "$processes" \
    ${WORK_DIR:+--work-dir "$WORK_DIR"})
work_dir=$(dirname "$written")
if [[ -n ${PARTITION:-} ]]; then
    export GPUS=$processes
    exec bash "$tools/slurm_train.sh" "$PARTITION" "$(basename "$written" .py)" "$written" "$work_dir" "$@"
fi
exec bash "$tools/dist_train.sh" "$written" "$processes" --work-dir "$work_dir" "$@"
