#!/usr/bin/env bash
# FCN on VOC train_aug2012, from a checkpoint of any known format:
#
#   bash tools/benchmarks/segment.sh CKPT [PROCESSES] [options of train.py]
#
#   PROCESSES  one per GPU, a divisor of the 16 images per step (default: 4); without a GPU they run on the CPU
#
#   CONFIG=configs/benchmarks/mmsegmentation/....py   another config
#   PARTITION=NAME                                    on that partition of Slurm
#   WORK_DIR=DIR                                      default: work_dirs/CONFIG/CKPT-SHA256
#   and the variables of dist_train.sh and slurm_train.sh
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
config=${CONFIG:-$tools/../configs/benchmarks/mmsegmentation/fcn_r50-d8_20k_voc12aug-512x512.py}
exec bash "$tools/benchmarks/transfer.sh" "${BASH_SOURCE[0]}" "$config" 4 "$@"
