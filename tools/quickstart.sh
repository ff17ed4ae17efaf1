#!/usr/bin/env bash
# Pre-trains a small backbone on generated scenes or on your own images, in a few minutes on two cores.
#
#   bash tools/quickstart.sh [--images DIR] [--out DIR] [--epochs N]
#
#   --images DIR   your images, at least 8, also in sub-folders, in place of generated scenes (no labels, so no probe)
#   --out DIR      output folder (default: work_dirs/quickstart)
#   --epochs N     number of epochs (default: 26)
#
# Ctrl-C stops it at any time; the same command resumes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
images='' out='' epochs=''
absolute() ( # of a path that need not exist; realpath -m is GNU's
    if [[ -d $1 ]]; then
        cd -- "$1" && pwd -P
    elif [[ -d $(dirname -- "$1") ]]; then
        cd -- "$(dirname -- "$1")" && printf '%s/%s\n' "$(pwd -P)" "$(basename -- "$1")"
    else
        case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s/%s\n' "$PWD" "$1" ;; esac
    fi
)
while [[ $# -gt 0 ]]; do
    case $1 in
    --images | --out | --epochs)
        [[ $# -ge 2 ]] || { echo "quickstart: $1 needs a value; see --help" >&2; exit 2; }
        # Paths are relative to the caller's working directory.
        case $1 in --images) images=$(absolute "$2") ;; --out) out=$(absolute "$2") ;; *) epochs=$2 ;; esac
        shift 2
        ;;
    -h | --help)
        sed -n '2,/^set -/{/^#/!d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *) echo "quickstart: unknown option $1; see --help" >&2; exit 2 ;;
    esac
done
if [[ -n $epochs && ! $epochs =~ ^[1-9][0-9]*$ ]]; then
    echo "quickstart: --epochs must be an integer >= 1, got $epochs" >&2
    exit 2
fi
if [[ -n $images && ! -e $images ]]; then
    echo "quickstart: --images $images does not exist: give a folder of images" >&2
    exit 2
fi

cd "$root"
bash tools/setup_env.sh --no-ops
python=$(bash tools/setup_env.sh --print-python)
out=${out:-$root/work_dirs/quickstart}
config=configs/ssprl/r18_quickstart.py
options=()
stopped() {
    echo "quickstart: stopped; run the same command again to resume"
    exit 130
}
if [[ -n $images ]]; then
    data=$images
    # The checksum of the path distinguishes folders of the same name, and keeps results apart from images.
    work=$out/$(basename "$images")-$(printf %s "$images" | cksum | cut -d ' ' -f 1)
    labels=''
    # Few images need smaller batches. Only the last line counts, since imports may warn.
    batch=$("$python" - "$images" "$config" <<'PY' | tail -n 1
import sys

from mmengine.config import Config

from sspyr_mm.datasets import UnlabelledImages

try:
    count = len(UnlabelledImages(sys.argv[1], lazy_init=True).list_images())
except (OSError, ValueError) as error:
    sys.exit(f"quickstart: {error}")
if count < 8:
    sys.exit(f"quickstart: --images {sys.argv[1]} has {count} images; at least 8 are needed (hundreds for useful features)")
print(min(Config.fromfile(sys.argv[2]).train_dataloader.batch_size, 2 ** (count.bit_length() - 1)))
PY
    )
    options+=("train_dataloader.batch_size=$batch")
else
    work=$out/toy_scenes
    labels=$work/data/annotations
    data=$work/data/train2017
    echo "== 1/4 scenes"
    status=0
    "$python" -m sspyr_mm toy-scenes "$work/data" --num-train 2000 --num-val 1000 --size 96 || status=$?
    [[ $status -ne 130 ]] || stopped
    [[ $status -eq 0 ]] || exit "$status"
fi

echo "== 2/4 pre-training (loss in units of ln K: 1.00 means nothing is learned)"
[[ -z $epochs ]] || options+=("train_cfg.max_epochs=$epochs")
status=0
"$python" tools/train.py "$config" --data-root "$data" --work-dir "$work" --resume ${options[@]+--cfg-options "${options[@]}"} || status=$?
[[ $status -ne 130 ]] || stopped
[[ $status -eq 0 ]] || exit "$status"
checkpoint=$(<"$work/last_checkpoint")

echo "== 3/4 evaluation"
status=0
"$python" -m sspyr_mm health "$checkpoint" --images "$data" || status=$?
[[ $status -le 1 ]] || exit "$status" # 1: a scale is ill, which does not stop the script
if [[ -n $labels ]]; then
    "$python" -m sspyr_mm probe "$checkpoint" --size 96 --json "$work/probe.json" \
        --train "$labels/instances_train2017.json" --val "$labels/instances_val2017.json"
else
    echo "no labels, so no probe; to run one on labelled images, see \`$python -m sspyr_mm probe --help\`"
fi

echo "== 4/4 export"
"$python" -m sspyr_mm export "$checkpoint" "$work/backbone.pth"
"$python" tools/browse_views.py "$config" --data-root "$data" --out "$work/views.png"
printf 'To see what its prototypes have learned: %q -m sspyr_mm atlas %q --images %q -o %q\n' \
    "$python" "$checkpoint" "$data" "$work/atlas"
