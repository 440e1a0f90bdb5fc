"""`--aot`: what the training step of a command costs on a TPU that is not here."""

from dataclasses import replace

from train.config import Config
from train.errors import TrainError
from train.run import TASKS


def run(config: Config) -> None:
    """Compile the step for the topology that --aot names and print what XLA says of it; nothing is trained."""
    if config.backend != "jax":
        raise TrainError(f"--aot {config.aot}: it is XLA that compiles for machines elsewhere; give --backend jax")
    if config.task not in TASKS:
        raise TrainError(f"--aot {config.aot}: --task {config.task} trains nothing; give {' or '.join(TASKS)}")
    from backends.jax import aot  # only where jax is asked for

    assert config.aot is not None
    devices = aot.devices(config.aot)
    config = replace(config, devices=len(devices))
    task = TASKS[config.task](config)
    row, _ = task.feed(1, config.effective_batch)(0)
    print(
        f"{config.aot}: {len(devices)} devices of kind {devices[0].device_kind}, {config.batch_size} images each,"
        f" {config.effective_batch:,} an update, {config.precision}, compiling ..."
    )
    step = aot.train_step(task.model, task.optimizer, devices, config.trainer_options())
    print(aot.cost(step, row, config.batch_size, config.update_freq))
