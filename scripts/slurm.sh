#!/bin/bash
# Train on several machines with SLURM:   sbatch scripts/slurm.sh recipe.yaml runs/mine [--option value ...]
#
# SLURM starts this script, this script one torchrun on each node, and torchrun one process for each GPU. Five minutes
# before the time is up, or when the job must make room for another, SLURM signals this script; the training then saves
# where it stands, and the job queues again and goes on from there, as it does after a crash of the machine.
#SBATCH --job-name=rmiseg
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append

recipe=${1:?usage: sbatch slurm.sh RECIPE.yaml RUN_FOLDER [--option value ...]}
run=${2:?usage: sbatch slurm.sh RECIPE.yaml RUN_FOLDER [--option value ...]}
shift 2

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --ntasks-per-node=1 --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "${GPUS_PER_NODE:-gpu}" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head_node:${MASTER_PORT:-29500}" \
    -m rmiseg train "$recipe" --out "$run" --resume auto --train.checkpoint_every 500 "$@" &
training=$!

# torchrun ends with status 1 whenever its processes do not end well: whether to queue again is known here alone.
preempted=
trap 'preempted=yes; kill -TERM $training' TERM
wait $training
status=$?
if [ -n "$preempted" ]; then
    wait $training  # the first wait ended with the signal
    [ -e "$run/result.json" ] || scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit $status
