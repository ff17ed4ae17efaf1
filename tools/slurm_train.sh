#!/usr/bin/env bash
# Trains on a Slurm cluster: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]
#
# GPUS (all processes, default 8), GPUS_PER_NODE (8), CPUS_PER_TASK (10: a loader's 8 workers and two),
# SRUN_ARGS (further options of srun), PYTHON (interpreter, default: python).
# Two minutes before the time limit, Slurm sends SIGTERM; training saves a checkpoint and exits, and --resume continues it.
# A script of sbatch needs the line `#SBATCH --signal=TERM@120` for that.
set -euo pipefail

if [[ $# -lt 4 ]]; then
    echo "usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]" >&2
    exit 2
fi
partition=$1
job_name=$2
config=$3
work_dir=$4
shift 4

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-8}
if ((gpus < gpus_per_node)); then
    gpus_per_node=$gpus
fi
read -r -a srun_args <<<"${SRUN_ARGS:-}"

export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
exec srun \
    --partition="$partition" \
    --job-name="$job_name" \
    --gres="gpu:$gpus_per_node" \
    --ntasks="$gpus" \
    --ntasks-per-node="$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-10}" \
    --kill-on-bad-exit=1 \
    --signal=TERM@120 \
    ${srun_args[@]+"${srun_args[@]}"} \
    "${PYTHON:-python}" -u "$here/train.py" "$config" --work-dir "$work_dir" --launcher slurm "$@"
