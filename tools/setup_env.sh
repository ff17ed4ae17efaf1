#!/usr/bin/env bash
# Makes the environment that the tools and tests run in. Run it again at any time: what is done already is skipped.
#
#   bash tools/setup_env.sh [--no-ops] [--print-python] [--help]
#
#   --no-ops        without mmcv's compiled ops (minutes to build): enough for pre-training, classification and
#                   segmentation. Run it again without this option to add them.
#   --print-python  only print the interpreter of the environment
#
# The environment is: $SSPYR_VENV if set (created if absent), else an active virtual or conda environment, else .venv in the
# repository. In one that was there before, packages are kept where they fit; in particular torch, and an original
# OpenMMLab stack (forks are never installed over it).
#
# The wheel of mmcv with ops is kept in ${XDG_CACHE_HOME:-~/.cache}/sspyr_mm/wheels, so that the next environment
# need not build it. Also read: SSPYR_PYTHON (interpreter for a new environment), MAX_JOBS (compilers at once; default:
# all cores), FORCE_CUDA=1 (build for CUDA where no GPU is seen), TORCH_CUDA_ARCH_LIST.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
requirements=$root/requirements
pins=$requirements/pins.txt
marker=.sspyr_mm # folder in the environment: stamps of finished steps, and `made_here` where this script made it
stamp_version=1  # raise it when a step changes in a way that requirements/ does not show

say() { printf '%s\n' "setup_env: $*"; }
fail() {
    printf '%s\n' "setup_env: error: $1" >&2
    shift
    [[ $# -eq 0 ]] || printf '           %s\n' "$@" >&2
    exit 1
}

with_ops=1
print_python=0
for argument in "$@"; do
    case $argument in
    --no-ops) with_ops=0 ;;
    --print-python) print_python=1 ;;
    -h | --help)
        sed -n '2,/^set -/{/^#/!d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *) fail "unknown option $argument" "options: --no-ops, --print-python, --help" ;;
    esac
done

# ---------------------------------------------------------------------------------------------- which environment
if [[ -n ${SSPYR_VENV:-} ]]; then
    mkdir -p "$(dirname "$SSPYR_VENV")"
    venv=$(cd "$(dirname "$SSPYR_VENV")" && pwd)/$(basename "$SSPYR_VENV")
elif [[ -n ${VIRTUAL_ENV:-} ]]; then
    venv=$VIRTUAL_ENV
elif [[ -n ${CONDA_PREFIX:-} && ${CONDA_DEFAULT_ENV:-base} != base ]]; then
    venv=$CONDA_PREFIX
else
    venv=$root/.venv
fi
python=$venv/bin/python
if ((print_python)); then
    printf '%s\n' "$python"
    exit 0
fi
stamps=$venv/$marker
# What PYTHONPATH and the user's site bring along is not part of the environment.
unset PYTHONPATH
export PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_REQUIRE_VIRTUALENV=0

made_here() { [[ $venv == "$root/.venv" || -e $stamps/made_here ]]; }
usable() { [[ -x $python ]] && "$python" -c 'import pip' >/dev/null 2>&1; }

# Children started in the background are stopped, and what a step was writing is removed, however this ends.
scratch=
child=
on_exit() {
    local status=$?
    if [[ -n $child ]]; then
        kill -TERM -- "-$child" 2>/dev/null || kill -TERM "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    [[ -z $scratch ]] || rm -rf "$scratch"
    if ((status > 128)); then
        say "interrupted; nothing is half-done: run the same command again to go on" >&2
    fi
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

lock() { # lock FILE DESCRIPTOR WHAT: one run at a time
    command -v flock >/dev/null 2>&1 || return 0
    eval "exec $2>\"\$1\""
    if ! flock -n "$2"; then
        say "waiting for another run: $3"
        flock "$2"
    fi
}

find_python() {
    local candidate
    for candidate in ${SSPYR_PYTHON:+"$SSPYR_PYTHON"} python3.11 python3.12 python3.10 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
        [[ $candidate != "${SSPYR_PYTHON:-}" ]] ||
            fail "SSPYR_PYTHON=$SSPYR_PYTHON is no Python 3.10, 3.11 or 3.12"
    done
    fail "no Python 3.10, 3.11 or 3.12 found" "install one, or name it: SSPYR_PYTHON=/path/to/python3.11 bash tools/setup_env.sh"
}

make_venv() {
    if usable; then return; fi
    if [[ -e $venv ]] && ! made_here && [[ -n $(ls -A "$venv") ]]; then
        fail "$venv is there but is no environment with pip" \
            "point SSPYR_VENV elsewhere, or remove that folder, or run: $python -m ensurepip"
    fi
    local base
    base=$(find_python)
    if [[ -e $venv/pyvenv.cfg || -e $venv/bin ]]; then
        say "$venv is half-made or broken: making it anew"
    else
        say "making $venv with $("$base" -c 'import platform; print("Python", platform.python_version())')"
    fi
    # The marker goes first: an environment that is interrupted from here on is recognised as ours.
    mkdir -p "$stamps"
    find "$venv" -mindepth 1 -maxdepth 1 ! -name "$marker" -exec rm -rf {} +
    find "$stamps" -mindepth 1 ! -name 'lock' -delete
    : >"$stamps/made_here"
    if ! "$base" -m venv "$venv" || ! usable; then
        find "$venv" -mindepth 1 -maxdepth 1 ! -name "$marker" -exec rm -rf {} +
        fail "$base -m venv $venv failed" \
            "on Debian and Ubuntu: apt-get install python3-venv; or choose another: SSPYR_PYTHON=/path/to/python3.11"
    fi
}

# -------------------------------------------------------------------------------------------------- what is there
# One look at the metadata of the environment; prints assignments of these. Imports no package, so that it is quick.
originals='' originals_lack='' torch_there='' torch_alone='' mmcv_there='' ops_there=0 stack_there=0 package_there=0
want_torch='' want_stack='' want_ops='' want_package=''
inspect() {
    "$python" - "$requirements" "$stamp_version" "$root" <<'PY'
import hashlib
import importlib.metadata as metadata
import pathlib
import platform
import shlex
import sys

requirements, stamp_version, root = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
there = {}
for dist in metadata.distributions():
    name = (dist.metadata["Name"] or "").lower().replace("_", "-")
    there.setdefault(name, dist.version)

def digest(*paths, extra=""):
    total = hashlib.sha256("\0".join([stamp_version, platform.python_version(), sys.prefix, extra]).encode())
    for path in paths:
        total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()[:16]

def assign(name, value):
    print(f"{name}={shlex.quote(str(value))}")

pins = requirements / "pins.txt"
lists = [requirements / f"{name}.txt" for name in ("mminstall", "runtime", "streaming", "tests", "lint", "build")]
package = [root / name for name in ("setup.py", "pyproject.toml", "requirements/runtime.txt", "sspyr_mm/version.py")]
originals = ("mmengine", "mmengine-lite", "mmcv", "mmcv-lite", "mmcv-full", "mmpretrain", "mmdet", "mmsegmentation")
torch = there.get("torch", "")
vision = there.get("torchvision", "")
assign("originals", ", ".join(f"{n} {there[n]}" for n in originals if n in there))
needed = {"mmengine": originals[0:2], "mmcv": originals[2:5], "mmpretrain": originals[5:6]}
assign("originals_lack", " ".join(n for n, names in needed.items() if not any(m in there for m in names)))
assign("torch_there", torch if vision else "")
assign("torch_alone", "" if vision else torch)
assign("mmcv_there", there.get("onedl-mmcv", ""))
site = [pathlib.Path(path) for path in sys.path if path.endswith("-packages")]
assign("ops_there", int(any(any((path / "mmcv").glob("_ext*.*")) for path in site)))
assign("package_there", int("sspyr-mm" in there))
assign("stack_there", int(all(n in there for n in ("onedl-mmengine", "onedl-mmpretrain", "pycocotools", "pytest"))))
assign("want_torch", digest(pins, requirements / "torch.txt"))
assign("want_stack", digest(pins, *lists, extra=torch))
assign("want_ops", digest(pins, extra=torch))
assign("want_package", digest(*package, extra=str(root)))
PY
}

done_before() { [[ -r $stamps/$1 && $(<"$stamps/$1") == "$2" ]]; }
begin() { # a step that is cut short leaves this behind, and no stamp
    mkdir -p "$stamps"
    rm -f "$stamps/$1"
    : >"$stamps/running"
}
finish() {
    printf '%s\n' "$2" >"$stamps/$1.new"
    mv -f "$stamps/$1.new" "$stamps/$1"
    rm -f "$stamps/running"
}

pip_install() { # pip_install REMEDY ARGUMENTS...
    local remedy=$1 status=0
    shift
    local -a quiet=()
    [[ -t 1 ]] || quiet=(-q)
    "$python" -m pip install ${quiet[@]+"${quiet[@]}"} "$@" || status=$?
    if ((status > 128)); then exit "$status"; fi
    if ((status)); then
        fail "pip install failed (see above); nothing is marked as done" "$remedy" \
            "then run the same command again: it goes on from this step"
    fi
}
network_remedy="is the package index reachable, is there room on the disk (df -h $venv)? a proxy or a mirror is set with pip's own settings;"

# After an interruption: pip takes a package without its list of files for installed. Removing its metadata lets pip
# install it again.
mend_interrupted() {
    [[ -e $stamps/running ]] || return 0
    say "an earlier run was interrupted: checking what it left"
    "$python" - <<'PY'
import importlib.metadata as metadata
import pathlib
import shutil

for dist in list(metadata.distributions()):
    path = pathlib.Path(getattr(dist, "_path", ""))
    if path.suffix != ".dist-info":
        continue
    files = dist.files
    # Compiled caches and scripts come and go; modules do not.
    lost = files is None or any(
        f.suffix in (".py", ".so") and ".." not in f.parts and not f.locate().exists() for f in files
    )
    if lost:
        print(f"setup_env: {dist.metadata['Name']} is incomplete and will be installed again")
        shutil.rmtree(path)
PY
    rm -f "$stamps/running"
}

# Constraints: our pins; in an environment that we did not make, only for what is not there yet, and with its torch.
write_constraints() {
    local keep=1
    made_here && keep=0
    "$python" - "$pins" "$keep" >"$1" <<'PY'
import importlib.metadata as metadata
import re
import sys

keep = sys.argv[2] == "1"
there = {(d.metadata["Name"] or "").lower().replace("_", "-"): d.version for d in metadata.distributions()}
for line in open(sys.argv[1], encoding="utf-8"):
    line = line.split("#")[0].strip()
    name = re.split(r"[=<>~!]", line)[0].strip().lower().replace("_", "-")
    # torch has a step of its own; from then on it stays what it is.
    settled = name in ("torch", "torchvision") and name in there
    if line and not settled and not (keep and name in there):
        print(line)
    elif settled:
        print(f"{name}=={there[name]}")
PY
}

# ---------------------------------------------------------------------------------------------------------- steps
install_torch() {
    if [[ -n $torch_there ]] && done_before torch "$want_torch"; then return; fi
    begin torch
    if [[ -n $torch_there$torch_alone ]] && ! made_here; then
        "$python" - "$requirements/torch.txt" "$torch_there$torch_alone" <<'PY' ||
import sys
from pip._vendor.packaging.requirements import Requirement

lines = (line.split("#")[0].strip() for line in open(sys.argv[1], encoding="utf-8"))
sys.exit(not all(
    Requirement(line).specifier.contains(sys.argv[2], prereleases=True) for line in lines if line.startswith("torch>")
))
PY
            fail "torch $torch_there$torch_alone in $venv does not fit: $(grep '^torch>' "$requirements/torch.txt") is needed" \
                "it is left as it is; use an environment of its own: deactivate, or SSPYR_VENV=$root/.venv bash tools/setup_env.sh"
    fi
    if [[ -n $torch_there ]] && ! made_here; then
        say "torch $torch_there: kept"
    elif [[ -n $torch_alone ]] && ! made_here; then
        say "torch $torch_alone: kept; installing the torchvision for it"
        pip_install "$network_remedy" "torch==$torch_alone" torchvision
    else
        say "torch and torchvision ($(grep '^torch==' "$pins")); the first download is 2 GB and more"
        pip_install "$network_remedy" -c "$pins" -r "$requirements/torch.txt"
    fi
    finish torch "$want_torch"
    eval "$(inspect)" # the later stamps depend on torch
}

install_stack() {
    if ((stack_there)) && done_before stack "$want_stack"; then return; fi
    begin stack
    scratch=$(mktemp -d)
    write_constraints "$scratch/constraints.txt"
    if [[ -n $originals ]]; then
        : >"$scratch/mminstall.txt"
        say "dependencies and test tools"
    else
        grep -v '^onedl-mmcv' "$requirements/mminstall.txt" >"$scratch/mminstall.txt" # a step of its own
        say "OpenMMLab stack, dependencies and test tools"
    fi
    pip_install "$network_remedy" -c "$scratch/constraints.txt" -r "$scratch/mminstall.txt" \
        -r "$requirements/runtime.txt" -r "$requirements/streaming.txt" -r "$requirements/tests.txt" -r "$requirements/lint.txt" -r "$requirements/build.txt"
    rm -rf "$scratch"
    scratch=
    finish stack "$want_stack"
}

# Prints the key of the wheel: everything that its binary depends on, and whether it is for GPUs.
wheel_key() {
    "$python" - "$1" "${FORCE_CUDA:-0}" "${TORCH_CUDA_ARCH_LIST:-}" <<'PY'
import platform
import re
import shutil
import sys

import torch

mmcv, force, archs = sys.argv[1:]
cuda = torch.version.cuda or getattr(torch.version, "hip", None)
kind = "cpu"
if force == "1" or (torch.cuda.is_available() and (shutil.which("nvcc") or shutil.os.environ.get("CUDA_HOME"))):
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    seen = {"{}.{}".format(*torch.cuda.get_device_capability(i)) for i in range(count)}
    kind = "gpu-sm" + "+".join(archs.replace(";", " ").split() or sorted(seen) or ["default"])
elif torch.cuda.is_available():
    print(
        "setup_env: GPU seen, but no CUDA compiler (nvcc; CUDA_HOME): mmcv's ops are built for the CPU only.\n"
        f"           For detection on the GPU install the CUDA {cuda} toolkit and run this again.",
        file=sys.stderr,
    )
tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
system = f"{platform.system()}_{platform.machine()}".lower()
key = f"mmcv{mmcv}-torch{torch.__version__}-{tag}-cuda{cuda or 'none'}-{kind}-{system}"
print(re.sub(r"[^A-Za-z0-9.+_-]", "_", key))
PY
}

ops_work() { "$python" -c 'import torch, mmcv._ext' >/dev/null 2>&1; }

cached_wheel() { # cached_wheel FOLDER: prints the wheel in it, if it is whole
    local wheel
    for wheel in "$1"/*.whl; do
        [[ -f $wheel ]] || continue
        if "$python" -m zipfile -t "$wheel" >/dev/null 2>&1; then
            printf '%s\n' "$wheel"
            return
        fi
        say "$wheel is damaged: removed" >&2
        rm -f "$wheel"
    done
}

compiler_remedy() {
    if ! command -v c++ >/dev/null 2>&1 && ! command -v "${CXX:-g++}" >/dev/null 2>&1; then
        printf '%s' "there is no C++ compiler: on Debian and Ubuntu, apt-get install build-essential;"
    else
        printf '%s' "out of memory? try MAX_JOBS=1 bash tools/setup_env.sh;"
    fi
}

has_ops() { # has_ops WHEEL. No pipe into `grep -q`: it stops reading, and pipefail takes the broken pipe for a no
    "$python" -c 'import sys, zipfile; sys.exit(not any(n.startswith("mmcv/_ext") for n in zipfile.ZipFile(sys.argv[1]).namelist()))' "$1"
}

elapsed() { printf '%d min %d s' $(((SECONDS - $1) / 60)) $(((SECONDS - $1) % 60)); }

build_wheel() { # build_wheel VERSION KEY: leaves the wheel in $cache/KEY, or nothing
    local version=$1 key=$2 log started status=0 jobs progress last='' said=0
    jobs=${MAX_JOBS:-$("$python" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)')}
    scratch=$(mktemp -d "$cache/.build.XXXXXX") # same file system as the cache: the rename at the end is atomic
    log=$scratch/log
    started=$SECONDS
    said=$SECONDS
    say "building mmcv $version with its compiled ops, $jobs at once; once for $key (about 15 minutes on 2 cores)"
    local -a environment=(MAX_JOBS="$jobs")
    [[ $key != *-cpu-* ]] || environment+=(CUDA_VISIBLE_DEVICES= FORCE_CUDA=0)
    set -m # a process group of its own, so that the compilers are stopped with it
    env "${environment[@]}" "$python" -m pip wheel -v --no-deps --no-cache-dir --no-build-isolation \
        --no-binary onedl-mmcv -w "$scratch/out" "onedl-mmcv==$version" >"$log" 2>&1 </dev/null &
    child=$!
    set +m
    while kill -0 "$child" 2>/dev/null; do
        sleep 1
        ((SECONDS >= said + 15)) || continue
        progress=$(grep -oE '\[[0-9]+/[0-9]+\]' "$log" | tail -n 1 | tr -d '[]' || true)
        [[ $progress != "$last" ]] || ((SECONDS >= said + 60)) || continue
        say "  ${progress:+${progress/\// of } objects compiled, }$(elapsed "$started")"
        last=$progress
        said=$SECONDS
    done
    wait "$child" || status=$?
    child=
    local -a wheels=("$scratch"/out/*.whl)
    if ((status == 0)) && ! has_ops "${wheels[0]}"; then
        echo "the wheel came without compiled ops: its setup could not import torch" >>"$log"
        status=1
    fi
    if ((status)); then
        tail -n 25 "$log" >&2
        mv -f "$log" "$cache/build-failed.log"
        fail "building mmcv failed; the whole log: $cache/build-failed.log" "$(compiler_remedy)" \
            "pre-training needs no compiled op: bash tools/setup_env.sh --no-ops"
    fi
    mkdir -p "$cache/$key"
    mv -f "${wheels[0]}" "$cache/$key/"
    rm -rf "$scratch" "$cache/build-failed.log"
    scratch=
    say "built in $(elapsed "$started"), kept in $cache/$key"
}

install_mmcv() {
    local version key wheel try
    version=$(sed -n 's/^onedl-mmcv==//p' "$pins")
    if [[ $mmcv_there == "$version" ]]; then
        if ((ops_there)) && done_before ops "$want_ops"; then return; fi
        if ((!with_ops)) && ((!ops_there)) && done_before pure "$want_ops"; then return; fi
    fi
    if ((ops_there)) && [[ $mmcv_there == "$version" ]] && ops_work; then # by hand, or before an update that kept torch
        finish ops "$want_ops"
        return
    fi
    key=$(wheel_key "$version")
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/sspyr_mm/wheels
    mkdir -p "$cache"
    wheel=$(cached_wheel "$cache/$key")
    if ((!with_ops)) && [[ -z $wheel ]]; then
        begin pure
        rm -f "$stamps/ops"
        say "mmcv $version without compiled ops"
        pip_install "$network_remedy" --no-deps --no-cache-dir --force-reinstall "onedl-mmcv==$version"
        pip_mmcv_dependencies "$version"
        finish pure "$want_ops"
        return
    fi
    for try in 1 2; do
        if [[ -z $wheel ]]; then
            lock "$cache/$key.lock" 8 "it builds the same wheel"
            wheel=$(cached_wheel "$cache/$key") # made by the other run?
            [[ -n $wheel ]] || build_wheel "$version" "$key"
            wheel=$(cached_wheel "$cache/$key")
        else
            say "mmcv $version with compiled ops, from $cache/$key"
        fi
        begin ops
        pip_install "$network_remedy" --no-deps --force-reinstall "$wheel"
        pip_mmcv_dependencies "$version"
        if ops_work; then
            finish ops "$want_ops"
            return
        fi
        [[ $try == 2 ]] || say "the wheel does not load here: building it anew"
        rm -f "$wheel"
        wheel=
    done
    "$python" -c 'import torch, mmcv._ext' || true
    fail "mmcv is built and installed, but its compiled ops cannot be loaded (see above)" \
        "does another torch or libstdc++ come first (LD_LIBRARY_PATH, PYTHONPATH)? run this again from a clean shell;" \
        "pre-training needs no compiled op: bash tools/setup_env.sh --no-ops"
}

pip_mmcv_dependencies() {
    scratch=$(mktemp -d)
    write_constraints "$scratch/constraints.txt"
    pip_install "$network_remedy" -c "$scratch/constraints.txt" "onedl-mmcv==$1"
    rm -rf "$scratch"
    scratch=
}

install_package() {
    if ((package_there)) && done_before package "$want_package"; then return; fi
    begin package
    say "sspyr_mm, editable"
    pip_install "see pip's message;" --no-deps --no-build-isolation -e "$root"
    finish package "$want_package"
}

check_originals() {
    [[ -n $originals ]] || return 0
    say "original OpenMMLab distributions found ($originals): kept as they are, no fork is installed over them"
    [[ -z $originals_lack ]] ||
        fail "this stack lacks: $originals_lack" \
            "complete it (pip install -U openmim && mim install $originals_lack)," \
            "or use an environment of its own: SSPYR_VENV=$root/.venv bash tools/setup_env.sh"
    if ((with_ops)) && ! ops_work; then
        say "its mmcv has no compiled ops: pre-training runs; detection needs them (mim install mmcv)"
    fi
}

# ------------------------------------------------------------------------------------------------------------ run
if usable && [[ ! -e $stamps/running ]]; then # the quick way out: nothing to do
    eval "$(inspect)"
    version=$(sed -n 's/^onedl-mmcv==//p' "$pins")
    mmcv_done=0
    if [[ -n $originals ]]; then
        [[ -n $originals_lack ]] || mmcv_done=1
        stack_there=1
    elif [[ $mmcv_there == "$version" ]]; then
        if ((ops_there)); then
            done_before ops "$want_ops" && mmcv_done=1
        elif ((!with_ops)); then
            done_before pure "$want_ops" && mmcv_done=1
        fi
    fi
    if ((mmcv_done && stack_there && package_there)) && [[ -n $torch_there ]] &&
        done_before torch "$want_torch" && done_before stack "$want_stack" && done_before package "$want_package"; then
        say "$venv is ready"
        exit 0
    fi
fi

if [[ -e $venv/bin/python ]] && ! made_here && ! usable; then
    fail "$python does not run, or has no pip" "mend or leave that environment, or set SSPYR_VENV to a folder for a new one"
fi
if [[ ! -e $stamps && -e $venv && -n $(ls -A "$venv") && ! -e $python ]] && ! made_here; then
    fail "$venv is not empty and no environment" "set SSPYR_VENV to another folder, which will be made"
fi
[[ -e $venv && -n $(ls -A "$venv") ]] || { mkdir -p "$stamps" && : >"$stamps/made_here"; }
mkdir -p "$stamps"
lock "$stamps/lock" 9 "it sets up $venv"
make_venv
mend_interrupted
eval "$(inspect)"
check_originals
install_torch
[[ -z $originals ]] || stack_there=1
install_stack
[[ -n $originals ]] || install_mmcv
install_package
say "$venv is ready; activate it: source $venv/bin/activate"
