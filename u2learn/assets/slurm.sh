#!/bin/bash
# A training that is longer than a queue allows: up to ten jobs of an hour, one after
# the other, on two machines with four GPUs each. Each job goes on where the one before
# it stopped; one that finds the training done ends at once. Give it to SLURM with:
# sbatch slurm.sh drive-fcn-ce
#SBATCH --array=1-10%1
#SBATCH --time=01:00:00
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16

# The runs, the data and the environment lie where all machines see them.
export U2LEARN_RUNS="$HOME/runs" U2LEARN_DATA="$HOME/data"
export OMP_NUM_THREADS=4
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Another port for each job, as two may share a machine.
port=$((29500 + SLURM_JOB_ID % 1000))

# Five minutes less than the job has, for the start and the last evaluation. Where a
# process dies, this job ends, and the next one goes on from the last checkpoint.
srun --kill-on-bad-exit=1 torchrun --nnodes="$SLURM_NNODES" --nproc-per-node=4 \
    --rdzv-backend=c10d --rdzv-endpoint="$first:$port" --rdzv-id="$SLURM_JOB_ID" \
    -m u2learn train "$1" --minutes 55
