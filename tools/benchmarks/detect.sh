#!/usr/bin/env bash
# Mask R-CNN on COCO, 15 000 steps, from a checkpoint of any known format:
#
#   bash tools/benchmarks/detect.sh CKPT [PROCESSES] [options of train.py]
#
#   PROCESSES  one per GPU, a divisor of the 16 images per step (default: 8); without a GPU they run on the CPU
#
#   CONFIG=configs/benchmarks/mmdetection/....py   another config
#   PARTITION=NAME                                 on that partition of Slurm
#   WORK_DIR=DIR                                   default: work_dirs/CONFIG/CKPT-SHA256
#   and the variables of dist_train.sh and slurm_train.sh
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
config=${CONFIG:-$tools/../configs/benchmarks/mmdetection/mask-rcnn_r50_fpn_15k_coco14.py}
exec bash "$tools/benchmarks/transfer.sh" "${BASH_SOURCE[0]}" "$config" 8 "$@"
