"""`--aot`: what the training step of a command costs on a TPU that is not here."""

from dataclasses import replace

from train.config import Config
from train.errors import TrainError
from train.run import TASKS


def run(config: Config) -> None:
    """Compile the step for the topology that --aot names and print what XLA says of it; nothing is trained."""
    topology = config.cluster.aot
    if config.run.backend != "jax":
        raise TrainError(f"--aot {topology}: it is XLA that compiles for machines elsewhere; give --backend jax")
    if config.run.task not in TASKS:
        raise TrainError(f"--aot {topology}: --task {config.run.task} trains nothing; give {' or '.join(TASKS)}")
    from backends.jax import aot  # only where jax is asked for

    assert topology is not None
    devices = aot.devices(topology)
    config = replace(config, devices=len(devices))
    task = TASKS[config.run.task](config)
    row, _ = task.feed(1, config.effective_batch)(0)
    print(
        f"{topology}: {len(devices)} devices of kind {devices[0].device_kind}, "
        f" {config.optimizer.batch_size} images each,"
        f" {config.effective_batch:,} an update, {config.run.precision}, compiling ..."
    )
    step = aot.train_step(task.model, task.optimizer, devices, config.trainer_options())
    print(aot.cost(step, row, config.optimizer.batch_size, config.optimizer.update_freq))
