#!/usr/bin/env bash
# Creates the environment of the tools and tests. Run it again at any time: it does only what is not done.
#
#   bash tools/setup_env.sh [--no-ops | --print-python | --help]
#   --no-ops        Skip mmcv's compiled ops (about 15 minutes, once). Only detection needs them.
#   --print-python  Print the interpreter of the environment and exit.
#
# The environment is $SSPYR_VENV if set, else the active virtual or conda environment, else .venv in the repository.
# An environment that this script did not create keeps the packages that fit, in particular torch and the original
# OpenMMLab distributions: forks are never installed over them. uv installs the packages; pip does where uv fails.
# Variables: SSPYR_PYTHON (interpreter of a new environment), UV_TORCH_BACKEND=cpu (torch without CUDA), MAX_JOBS
# (compilers in parallel), FORCE_CUDA=1 (ops for CUDA without a visible GPU), TORCH_CUDA_ARCH_LIST, those of uv and pip.
set -euo pipefail

active=${VIRTUAL_ENV:-}
[[ ${CONDA_DEFAULT_ENV:-base} == base ]] || active=${active:-${CONDA_PREFIX:-}}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${SSPYR_VENV:-${active:-$PWD/.venv}}
[[ $venv == /* ]] || venv=$OLDPWD/$venv
python=$venv/bin/python
state=$venv/.sspyr_mm # `made_here`: created by this script; `installing`: interrupted; `ready` and `ops`: what is done
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sspyr_mm
say() { printf 'setup_env: %s\n' "$*"; }
fail() { say "error: $*" >&2; exit 1; }
case $* in
'') with_ops=1 ;;
--no-ops) with_ops=0 ;;
--print-python) echo "$python"; exit ;;
-h | --help) sed -n '2,/^set -/{/^#/!d;s/^# \{0,1\}//;p;}' tools/setup_env.sh; exit ;;
*) fail "unknown option $*; options: --no-ops, --print-python, --help" ;;
esac
unset PYTHONPATH # neither this nor the user's site-packages is part of the environment
export PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 UV_BUILD_CONSTRAINT=requirements/build.txt
export UV_COMPILE_BYTECODE=1 # as pip does; with PYTHONDONTWRITEBYTECODE set, as in containers, each process would do it
trap 'say "interrupted; run the same command again to continue" >&2; exit 130' INT

installed() { (cd "$venv"/lib/python3*/site-packages && ls -d -- *.dist-info mmcv/_ext*) 2>/dev/null || true; }
inputs=(requirements/*.txt setup.py pyproject.toml sspyr_mm/version.py tools/setup_env.sh)
checksum() { { pwd && cat "${inputs[@]}" && installed; } | cksum; }
exit_if_ready() {
    [[ -x $python && -r $state/ready && ! -e $state/installing ]] || return 0
    case $(<"$state/ready") in "1 $(checksum)" | "$with_ops $(checksum)") say "$venv is ready"; exit ;; esac
}
exit_if_ready
mkdir -p "$cache" && exec 9>"$cache/lock"
! command -v flock >/dev/null || flock -n 9 || { say "waiting for another set-up" && flock 9; }
exit_if_ready # the other set-up may have done it

runs() { "$python" -c "$1" >/dev/null 2>&1; }
supported='import sys; assert (3, 10) <= sys.version_info < (3, 13)'
if [[ ! -e $state/made_here && -n $(ls -A "$venv" 2>/dev/null) ]]; then
    runs "$supported" || fail "$venv is not an environment with Python 3.10 to 3.12; deactivate it or set SSPYR_VENV"
elif [[ -e $state/installing ]] || ! runs "$supported; import pip"; then
    base=$(for name in ${SSPYR_PYTHON:-python3.11 python3.12 python3.10 python3 python}; do
        "$name" -c "$supported" 2>/dev/null && echo "$name" && break
    done) || fail "${SSPYR_PYTHON:-PATH} has no Python 3.10 to 3.12; install one, or set SSPYR_PYTHON=/path/to/python"
    say "creating $venv with $("$base" -V)"
    rm -rf "$venv" && mkdir -p "$state" && touch "$state/made_here"
    "$base" -m venv "$venv" || fail "'$base -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv"
fi
mkdir -p "$state"
uv=$(PATH=$venv/bin:$PATH command -v uv) || { "$python" -m pip install -q uv && uv=$venv/bin/uv; } || uv=false

install() { # pip may succeed where uv fails: only pip reads its own configuration of mirrors and proxies
    [[ -t 1 ]] || set -- -q "$@"
    "$uv" pip install --python "$python" "$@" || { say "no uv, or it failed: using pip"; "$python" -m pip install "$@"; }
}
# Constraints: the pins; for an environment of the user, its torch and the pins of the packages that it lacks.
originals=$("$python" - "$state" <<'PY'
import importlib.metadata, pathlib, re, sys
state = pathlib.Path(sys.argv[1])
there = {re.sub("[-_.]+", "-", d.metadata["Name"] or "").lower(): d.version for d in importlib.metadata.distributions()}
kept = {} if (state / "made_here").exists() else there
skipped = {*kept, "torchvision"} if "torch" in kept else kept
lines = [line for line in open("requirements/pins.txt") if re.split("[= ]", line)[0] not in skipped]
lines += [f"{name}=={kept[name]}\n" for name in ("torch", "torchvision") if name in kept]
(state / "constraints.txt").write_text("".join(lines))
originals = [n for n in there if re.fullmatch("(mmengine|mmcv)(-lite|-full)?|mmpretrain|mmdet|mmsegmentation", n)]
if originals and (lacking := {"mmengine", "mmcv", "mmpretrain"} - {name.split("-")[0] for name in originals}):
    sys.exit(f"setup_env: error: {sys.prefix} has {originals} and lacks {lacking}: mim install them, or set SSPYR_VENV")
print(*originals)
PY
)
lists=(-rrequirements/{torch,runtime,streaming,compare,features,tests,docs,lint,build}.txt) constraints=(-c "$state/constraints.txt") failed=''
[[ -n $originals ]] || lists+=(-rrequirements/mminstall.txt)
say "installing packages (3 GB on the first download)${originals:+; kept: $originals}"
touch "$state/installing"
# Both opencv distributions write to cv2. The headless one comes later and wins: it needs no libGL.
{ [[ -n $originals ]] || install "${constraints[@]}" opencv-python; } && install "${constraints[@]}" "${lists[@]}" &&
    install --no-deps --no-build-isolation -e . || failed=1
rm "$state/installing"
[[ -z $failed ]] || fail "no packages, see above: network, disk, a conflict? SSPYR_VENV=FOLDER makes a new environment"

key=$([[ -n $originals ]] || "$python" - <<'PY'
import importlib.metadata, os, shutil, sys, sysconfig, torch
gpus = {"%d.%d" % torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
for_gpu = os.environ.get("FORCE_CUDA") == "1" or (gpus and (os.environ.get("CUDA_HOME") or shutil.which("nvcc")))
archs = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split() or gpus or ["default"]
gpu = "gpu-sm" + "+".join(sorted(archs)) if for_gpu else "cpu"
mmcv, cuda = importlib.metadata.version("onedl-mmcv"), torch.version.cuda or torch.version.hip or "none"
system = sysconfig.get_platform().replace("-", "_")
print(f"mmcv{mmcv}-torch{torch.__version__}-cp3{sys.version_info.minor}-cuda{cuda}-{gpu}-{system}")
PY
)
folder=$cache/wheels/$key mmcv=${key%%-*} ops='import torch, mmcv._ext'
ops_work() { [[ $(cat "$state/ops" 2>/dev/null || echo "$key") == "$key" ]] && runs "$ops"; }
install_ops() { [[ -d $folder ]] && install --no-deps --force-reinstall "$folder"/* && echo "$key" >"$state/ops" && ops_work; }
if [[ -n $key ]] && ! ops_work && ! install_ops; then
    rm -rf "$state/ops" "$venv"/lib/python3*/site-packages/mmcv/_ext* "$folder" "$cache/build" # they do not load
    if ((with_ops)); then # mmcv's setup compiles its ops only where it can import torch: without build isolation
        say "compiling mmcv's ops as $key (about 15 minutes on 2 cores; GPUs need nvcc); log: $cache/build.log"
        [[ $key != *-cpu-* ]] || export CUDA_VISIBLE_DEVICES='' FORCE_CUDA=0
        MAX_JOBS=${MAX_JOBS:-$(nproc || echo 2)} "$python" -m pip wheel -v --no-deps --no-cache-dir --no-binary onedl-mmcv \
            --no-build-isolation -w "$cache/build" "onedl-${mmcv/mmcv/mmcv==}" >"$cache/build.log" 2>&1 </dev/null ||
            fail "no ops: $(tail -n 1 "$cache/build.log"); is there a C++ compiler? Try MAX_JOBS=1 or --no-ops"
        mkdir -p "$cache/wheels" && mv "$cache/build" "$folder"
        install_ops || fail "mmcv's ops cannot be loaded: $("$python" -c "$ops" 2>&1 | tail -n 1)"
    fi
fi
echo "$with_ops $(checksum)" >"$state/ready"
say "$venv is ready; activate it: source $venv/bin/activate"
