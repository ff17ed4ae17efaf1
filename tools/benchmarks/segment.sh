#!/usr/bin/env bash
# FCN on VOC train_aug2012, from a checkpoint of any known format:
# bash tools/benchmarks/segment.sh CKPT [GPUS, default 4] [options of train.py]
#
# CONFIG chooses another config, PARTITION runs it on Slurm; see transfer.sh for the rest.
set -euo pipefail

if [[ $# -lt 1 ]]; then
    echo "usage: bash tools/benchmarks/segment.sh CKPT [GPUS] [options of train.py]" >&2
    exit 2
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
config=${CONFIG:-$tools/../configs/benchmarks/mmsegmentation/fcn_r50-d8_20k_voc12aug-512x512.py}
checkpoint=$1 gpus=${2:-4}
shift $(($# < 2 ? $# : 2))
exec bash "$tools/benchmarks/transfer.sh" mmseg "$config" "$checkpoint" "$gpus" "$@"
