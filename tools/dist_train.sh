#!/usr/bin/env bash
# Trains with one process per GPU: bash tools/dist_train.sh CONFIG GPUS [options of train.py]
# Without a GPU the same command runs GPUS processes on the CPU.
#
# MAX_RESTARTS (default 0): how often torchrun starts all processes again after one has failed; give --resume, so that they
# continue from the last checkpoint.
# Several machines: run it on each, with NNODES, NODE_RANK, MASTER_ADDR (address of machine 0) and PORT set.
# PYTHON chooses the interpreter (default: python).
set -euo pipefail

if [[ $# -lt 2 || ! $2 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: bash tools/dist_train.sh CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
config=$1
gpus=$2
shift 2

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python}
nnodes=${NNODES:-1}
node_rank=${NODE_RANK:-0}

if ! "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; then
    echo "dist_train.sh: $python has no torch: activate the environment (source .venv/bin/activate) or set PYTHON" >&2
    exit 2
fi
if [[ $nnodes -gt 1 && -z ${MASTER_ADDR:-} ]]; then
    echo "dist_train.sh: NNODES=$nnodes needs MASTER_ADDR, the address of the machine with NODE_RANK=0" >&2
    exit 2
fi
address=${MASTER_ADDR:-127.0.0.1}
if [[ -n ${PORT:-} ]]; then
    port=$PORT
elif [[ $nnodes -gt 1 ]]; then
    port=29500
else # a free port, so that two runs on a machine do not collide
    port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
fi

# On the CPU the processes share the cores; with GPUs torchrun's own default (1 thread) leaves them to data loading.
if [[ -z ${OMP_NUM_THREADS:-} ]] && ! { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1; then
    # train.py chooses the number, which depends on the workers; torchrun warns without a value.
    export OMP_NUM_THREADS=1 SSPYR_MM_THREADS=${SSPYR_MM_THREADS:-auto}
fi

export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
rendezvous=(--node_rank="$node_rank" --master_addr="$address" --master_port="$port")
if [[ ${MAX_RESTARTS:-0} -gt 0 ]]; then # with a store of its own for each start, without the addresses of failed processes
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    rendezvous=(--rdzv_backend=c10d --rdzv_endpoint="$address:$port" --rdzv_id="$port" --max_restarts="$MAX_RESTARTS")
fi
exec "$python" -m torch.distributed.run \
    --nnodes="$nnodes" \
    --nproc_per_node="$gpus" \
    "${rendezvous[@]}" \
    "$here/train.py" "$config" --launcher pytorch "$@"
