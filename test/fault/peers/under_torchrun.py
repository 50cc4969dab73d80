"""One rank under `torchrun`: gloo, a shared folder of checkpoints.

Usage: torchrun --standalone --nproc-per-node=2 --max-restarts=8 under_torchrun.py FOLDER STEPS CHECKPOINT_STEPS BATCH LENGTH
"""

import sys
from pathlib import Path

import torch.distributed as dist
from decoder_training import Events, newest_checkpoint, train, write_checkpoint


def main(folder, steps, checkpoint_steps, batch, length):
    checkpoints = Path(folder) / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    dist.init_process_group("gloo")

    def save(state):
        if state is not None:
            write_checkpoint(checkpoints, state)

    settings = dict(steps=int(steps), checkpoint_steps=int(checkpoint_steps), batch=int(batch), length=int(length))
    train(settings, Events(folder, dist.get_rank()), newest_checkpoint(checkpoints), save)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
