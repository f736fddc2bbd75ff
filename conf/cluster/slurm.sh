#!/usr/bin/env bash
# One training on several SLURM nodes:  sbatch --nodes 2 --gpus-per-node 4 conf/cluster/slurm.sh CONFIG SHARDS
# Further words go to `srdet train`. Without GPUs: sbatch --ntasks-per-node=1 ... --trainer.accelerator cpu
#
# SLURM starts the processes, the script reads its world from SLURM's environment. The MLflow store must be
# a server here (several nodes cannot share a sqlite file): export MLFLOW_TRACKING_URI=http://host:5000
#
# Two minutes before the time is up, and where a more urgent job takes the machine, SLURM sends SIGTERM: the
# training saves, ends with status 143, is queued again under the same number, and goes on where it stood.
#SBATCH --job-name=srdet
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
config=${1:?first word: a file of conf/experiment}
shards=${2:?second word: folder or address of the shards}
# The job's name must not be "bash" or "interactive": Lightning then ignores SLURM.
status=0
srun --kill-on-bad-exit=1 python pipeline/train.py fit --config "$config" --data.shards "$shards" \
  --run.out "runs/$SLURM_JOB_ID" --trainer.accelerator cuda "${@:3}" || status=$?
if [ "$status" -eq 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
