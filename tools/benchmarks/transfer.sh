#!/usr/bin/env bash
# Trains a detector or segmenter from a checkpoint of any known format; what detect.sh and segment.sh call:
# bash tools/benchmarks/transfer.sh TARGET CONFIG CKPT GPUS [options of train.py]
#
# The backbone is exported into the work dir first; one that is not whole ends the script there.
# WORK_DIR (default: work_dirs/CONFIG/CKPT), PARTITION (of Slurm; default: this machine), and the variables of dist_train.sh
# and slurm_train.sh.
set -euo pipefail

if [[ $# -lt 4 || ! $4 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: bash tools/benchmarks/transfer.sh TARGET CONFIG CKPT GPUS [options of train.py]" >&2
    exit 2
fi
target=$1 config=$2 checkpoint=$3 gpus=$4
shift 4

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=$(basename "$config" .py)
work_dir=${WORK_DIR:-work_dirs/$name/$(basename "$checkpoint" .pth)}
backbone=$work_dir/backbone.pth
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
"${PYTHON:-python}" -m sspyr_mm export "$checkpoint" "$backbone" --to "$target"

start=("model.backbone.init_cfg.checkpoint=$backbone")
if [[ $name == *-c4_* ]]; then
    start+=("model.roi_head.shared_head.init_cfg.checkpoint=$backbone")
fi
options=() given=() last=''
for option in "$@"; do # one --cfg-options: a second one would replace the first
    case $option in
    --cfg-options) last=cfg ;;
    --*) last='' options+=("$option") ;;
    *) if [[ $last == cfg ]]; then given+=("$option"); else options+=("$option"); fi ;;
    esac
done
options+=(--cfg-options "${start[@]}" ${given[@]+"${given[@]}"})
if [[ -n ${PARTITION:-} ]]; then
    export GPUS=$gpus
    exec bash "$tools/slurm_train.sh" "$PARTITION" "$name" "$config" "$work_dir" "${options[@]}"
fi
exec bash "$tools/dist_train.sh" "$config" "$gpus" --work-dir "$work_dir" "${options[@]}"
