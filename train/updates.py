"""The batches of a run, an update at a time."""

from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice
from typing import Any

from backends.protocol import Batch, Cluster
from train.command.config import Config
from train.data.feed import RankShard
from train.data.pipeline import Watch, prefetch
from train.record.meter import Meter
from train.tasks.task import Task


class Updates:
    """What this process passes to the trainer in each update, and what all processes together do."""

    def __init__(self, config: Config, task: Task, cluster: Cluster, updates_per_epoch: int) -> None:
        self.config, self.cluster = config, cluster
        self.feed = task.feed(config.batch_size * cluster.devices, updates_per_epoch * config.effective_batch)

    def made(
        self, start: int, stop: int, meter: Meter, say: Callable[[str], None], leave: Callable[[], bool]
    ) -> Generator[tuple[list[Batch], list[str]], None, None]:
        """The micro-batches of each update from `start` on, and a line for each broken image in them.

        It ends at `stop`, or before when `leave` says so while a batch is waited for.
        """
        config, frequency = self.config, self.config.update_freq
        own = RankShard(self.feed, self.cluster.rank, self.cluster.processes)
        watch = Watch(say, self._awaited, leave)
        made = prefetch(own, start * frequency, stop * frequency, config.num_workers, config.worker_type, watch)
        with closing(made):
            for _ in range(start, stop):
                with meter.waiting():
                    group = list(islice(made, frequency))
                if len(group) < frequency:
                    return
                yield [batch for batch, _ in group], [line for _, lines in group for line in lines]

    def about(self, step: int) -> dict[str, Any]:
        """The samples of the update that ends at `step`: from and to which place in the run, and their items."""
        count = self.config.effective_batch
        positions = range((step - 1) * count, step * count)
        items = [self.feed.key(position) for position in positions]
        return {"positions": [positions.start, positions.stop], "items": items}

    def _awaited(self, index: int) -> str:
        """What micro-batch `index` of this process is made of."""
        positions = self.feed.positions(index * self.cluster.processes + self.cluster.rank)
        update = index // self.config.update_freq + 1
        key = self.feed.key(int(positions[0]))
        return f"update {update:,} waits for images of --data_path {self.config.data_path}, from {key} on"
