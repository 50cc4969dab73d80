"""The driver of Ray Train: a TorchTrainer with gloo, checkpoints reported to its storage, failures retried by its FailureConfig.

Usage: python under_ray.py FOLDER STEPS CHECKPOINT_STEPS BATCH LENGTH WORLD
"""

import sys
import tempfile
from pathlib import Path


def rank_loop(settings):
    import ray.train
    from decoder_training import Events, newest_checkpoint, train, write_checkpoint

    events = Events(settings["folder"], ray.train.get_context().get_world_rank())

    def save(state):
        if state is None:
            ray.train.report({})
            return
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(folder, state)
            ray.train.report({"step": state["step"]}, checkpoint=ray.train.Checkpoint.from_directory(folder))

    resumed = None
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            resumed = newest_checkpoint(folder)
    train(settings, events, resumed, save)


def main(folder, steps, checkpoint_steps, batch, length, world):
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # One CPU more than ranks, so that a rank that is started again never waits for the place of the lost one.
    ray.init(num_cpus=int(world) + 1, include_dashboard=False, object_store_memory=128 << 20, _temp_dir=f"{folder}/ray")
    settings = dict(folder=folder, steps=int(steps), checkpoint_steps=int(checkpoint_steps), batch=int(batch), length=int(length))
    TorchTrainer(
        rank_loop,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=int(world), resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="recovery", storage_path=str(Path(folder) / "storage"),
                             failure_config=FailureConfig(max_failures=8)),
    ).fit()
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
