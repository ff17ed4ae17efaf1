#!/usr/bin/env bash
# Measures pre-training on the GPU of this machine, in the settings that people choose between:
#
#   bash tools/benchmarks/gpu_bench.sh OUT [--images DIR]
#
# Leaves a JSON file per setting in OUT, how the step grows (growth.json and .svg) and, with --images, what precision,
# layout and compiling do to the loss (loss_curves.json and .svg); docs/benchmarks/README.md says what they mean.
# BATCH (images a step, default 128), WORKERS (default: all cores but one), EPOCHS (of each loss curve, default 2),
# PYTHON (default: python)
set -euo pipefail

if [[ $# -lt 1 || $1 == -* ]]; then
    sed -n '2,/^set -/{/^#/!d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
    exit 2
fi
out=$1
shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-python}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$out"
"$python" -c 'import torch, sys; sys.exit(None if torch.cuda.is_available() else "gpu_bench: torch sees no GPU here; on a CPU use `python -m sspyr_mm bench`")'

measure() { # NAME CONFIG
    printf '%s\n' "== $1"
    "$python" -m sspyr_mm bench --config "$2" --batch-size "${BATCH:-128}" ${WORKERS:+--num-workers "$WORKERS"} \
        --json "$out/$1.json" "${images[@]+"${images[@]}"}"
}
images=("$@")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
variant() { # NAME LINES: the paper's config with changes
    printf '_base_ = "%s"\n%s\n' "$root/configs/ssprl/r50_coco_200e.py" "$2" >"$scratch/$1.py"
    measure "$1" "$scratch/$1.py"
}
bf16='optim_wrapper = dict(type="AutocastOptimWrapper")'
variant float32 ''
variant bfloat16 "$bf16"
variant bfloat16_channels_last "$bf16
model = dict(channels_last=True)"
variant bfloat16_channels_last_compiled "$bf16
model = dict(channels_last=True, compile_backbone=True, data_preprocessor=dict(compiled=True))"
variant bfloat16_channels_last_recompute_scale "$bf16
model = dict(channels_last=True, recompute=\"scale\")"
variant bfloat16_channels_last_recompute_stage "$bf16
model = dict(channels_last=True, recompute=\"stage\")"
printf '%s\n' "== growth"
"$python" "$root/tools/benchmarks/growth.py" --out "$out"
if [[ ${images[0]:-} == --images ]]; then
    printf '%s\n' "== loss curves"
    "$python" "$root/tools/benchmarks/loss_curves.py" --config "$root/configs/ssprl/r50_coco_200e.py" --data-root "${images[1]}" \
        --out "$out" --cfg-options "train_cfg.max_epochs=${EPOCHS:-2}" "train_dataloader.batch_size=${BATCH:-128}" \
        ${WORKERS:+"train_dataloader.num_workers=$WORKERS"}
fi
