#!/bin/bash
# Train on all GPUs of this machine:   scripts/torchrun.sh recipe.yaml runs/mine [--option value ...]
# Where there is none, PROCESSES=2 scripts/torchrun.sh ... tries the same on the CPU.
recipe=${1:?usage: torchrun.sh RECIPE.yaml RUN_FOLDER [--option value ...]}
run=${2:?usage: torchrun.sh RECIPE.yaml RUN_FOLDER [--option value ...]}
shift 2
exec torchrun --standalone --nproc-per-node "${PROCESSES:-gpu}" \
    -m rmiseg train "$recipe" --out "$run" --resume auto "$@"
