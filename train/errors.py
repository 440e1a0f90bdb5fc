"""The exceptions that `python -m train` prints as one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class TrainError(ValueError):
    """A run cannot start or continue. One line: what is wrong, where, and what to do about it."""


class NoSplit(TrainError):
    """The data has no such split: it is not divided, or in a way that is not recognised."""


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Context for what writes to a place, named with its flag; TrainError if that fails."""
    try:
        yield
    except BrokenPipeError:  # of the terminal
        raise
    except OSError as error:
        raise TrainError(f"{what}: cannot be written: {error.strerror}") from None


def of_convert(path: str | Path, error: Exception) -> str:
    """The line of an error of convert, with the command whose flag it advises, if any."""
    if re.search(r" --(from|key|prefix|weights-only)\b", str(error)):
        return f"{error}: a flag of `twinnext convert translate {path} --to ours -o NEW`"
    return str(error)


EXTRAS = {
    "torch": ("torch",),
    "jax": ("jax", "flax", "optax"),
    "train": ("jinja2", "matplotlib", "PIL", "sklearn", "simplejpeg", "tensorboard", "tqdm"),
    "convert": ("msgpack", "orbax", "tensorstore"),
    "parquet": ("pyarrow",),
    "arrays": ("imagecodecs", "tifffile"),
    "slurm": ("submitit",),
    "wandb": ("wandb",),
}
"""Extra of our package -> the modules that it installs."""


def missing_package(error: ModuleNotFoundError) -> str:
    """One line that names the extra to install; raises the error again if the module is of no extra."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules:
            return f"{module} is not installed; pip install 'twinnext[{extra}]'"
    raise error
