#!/bin/bash
#SBATCH --job-name=pairs --array=0-99 --cpus-per-task=1 --time=02:00:00 --requeue
set -euo pipefail
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
python many_pairs.py "$1" "$SLURM_ARRAY_TASK_ID" "$SLURM_ARRAY_TASK_COUNT"
