#!/usr/bin/env bash
# Measures pre-training on the GPU of this machine in several settings:
#
#   bash tools/speed/gpu_bench.sh OUT [--images DIR]
#
# Writes to OUT a JSON file per setting, the comparison with other implementations (compare.json), the growth of a step
# (growth.json and .svg) and, with --images, the effect of precision, layout and compiling on the loss (loss_curves.json
# and .svg); docs/speed/README.md explains them.
# BATCH (images per step, default 128), WORKERS (default: all cores but one), CURVE_BATCH and EPOCHS (per loss curve,
# default 32 and 2: most are in float32), PYTHON (default: python)
set -euo pipefail

if [[ $# -lt 1 || $1 == -* ]]; then
    sed -n '2,/^set -/{/^#/!d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
    [[ ${1:-} == -h || ${1:-} == --help ]] || exit 2
    exit 0
fi
out=$1
shift
if [[ $# -ne 0 && ($# -ne 2 || $1 != --images) ]]; then
    echo "gpu_bench: got '$*' after OUT, expected nothing or --images DIR" >&2
    exit 2
fi
images=("$@")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-python}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$out"
"$python" - "$python" <<'PY'
import sys

try:
    import torch
except ImportError:
    print(f"gpu_bench: {sys.argv[1]} has no torch: activate the environment, or set PYTHON", file=sys.stderr)
    sys.exit(2)
if not torch.cuda.is_available():
    sys.exit("gpu_bench: torch sees no GPU here; on a CPU use `python -m sspyr_mm bench`")
PY

failed=()
attempt() { # NAME COMMAND...: after a failure, such as too little memory, the other measurements still run
    printf '%s\n' "== $1"
    "${@:2}" || failed+=("$1")
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
variant() { # NAME LINES: the paper's config with changes
    printf '_base_ = "%s"\n%s\n' "$root/configs/ssprl/r50_coco_200e.py" "$2" >"$scratch/$1.py"
    attempt "$1" "$python" -m sspyr_mm bench --config "$scratch/$1.py" --batch-size "${BATCH:-128}" \
        ${WORKERS:+--num-workers "$WORKERS"} --json "$out/$1.json" "${images[@]+"${images[@]}"}"
}
bf16='optim_wrapper = dict(type="AutocastOptimWrapper")'
variant bfloat16 "$bf16"
variant bfloat16_channels_last "$bf16
model = dict(channels_last=True)"
variant bfloat16_channels_last_compiled "$bf16
model = dict(channels_last=True, compile_backbone=True, data_preprocessor=dict(compiled=True))"
variant bfloat16_channels_last_recompute_scale "$bf16
model = dict(channels_last=True, recompute=\"scale\")"
variant bfloat16_channels_last_recompute_stage "$bf16
model = dict(channels_last=True, recompute=\"stage\")"
variant float32 '' # 76 GiB of tensors at 128 images: last
attempt compare "$python" "$root/tools/speed/compare.py" --config "$scratch/bfloat16_channels_last.py" \
    --batch-size "${BATCH:-128}" ${WORKERS:+--num-workers "$WORKERS"} --out "$out" "${images[@]+"${images[@]}"}"
attempt growth "$python" "$root/tools/speed/growth.py" --out "$out"
if [[ ${#images[@]} -ne 0 ]]; then
    attempt loss_curves "$python" "$root/tools/speed/loss_curves.py" \
        --config "$root/configs/ssprl/r50_coco_200e.py" --data-root "${images[1]}" --out "$out" \
        --cfg-options "train_cfg.max_epochs=${EPOCHS:-2}" "train_dataloader.batch_size=${CURVE_BATCH:-32}" \
        ${WORKERS:+"train_dataloader.num_workers=$WORKERS"}
fi
if [[ ${#failed[@]} -ne 0 ]]; then
    echo "gpu_bench: failed: ${failed[*]}" >&2
    exit 1
fi
