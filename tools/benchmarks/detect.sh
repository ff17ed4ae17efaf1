#!/usr/bin/env bash
# Mask R-CNN on COCO, 15 000 steps, from a checkpoint of any known format:
# bash tools/benchmarks/detect.sh CKPT [GPUS, default 8] [options of train.py]
#
# CONFIG chooses another config, PARTITION runs it on Slurm; see transfer.sh for the rest.
set -euo pipefail

if [[ $# -lt 1 ]]; then
    echo "usage: bash tools/benchmarks/detect.sh CKPT [GPUS] [options of train.py]" >&2
    exit 2
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
config=${CONFIG:-$tools/../configs/benchmarks/mmdetection/mask-rcnn_r50_fpn_15k_coco14.py}
checkpoint=$1 gpus=${2:-8}
shift $(($# < 2 ? $# : 2))
exec bash "$tools/benchmarks/transfer.sh" mmdet "$config" "$checkpoint" "$gpus" "$@"
