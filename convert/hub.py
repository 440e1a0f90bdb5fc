"""Checkpoints on the Hugging Face hub, named hf:owner/name or hf:owner/name@revision."""

import importlib.util
import re
from functools import cache
from pathlib import Path

from convert.errors import ConvertError

NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
FILES = ("*.safetensors", "*.bin")
"""Where weights are, in the order of preference; repositories often hold both."""


def local(path: str | Path) -> Path:
    """The path itself, or the folder in the hub's cache that holds a checkpoint of the hub, downloaded if need be.

    ConvertError if the name is not one of the hub, huggingface_hub is not installed, or it cannot be downloaded.
    """
    return _downloaded(str(path)) if str(path).startswith("hf:") else Path(path)


def stem(path: Path) -> Path:
    """A path in the current folder with the name of a checkpoint of the hub; other paths unchanged."""
    found = NAME.fullmatch(str(path))
    return Path(found["repo"].partition("/")[2]) if found else path


@cache  # a run reads its checkpoint several times
def _downloaded(path: str) -> Path:
    found = NAME.fullmatch(path)
    if found is None:
        raise ConvertError(f"{path}: not hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ConvertError(f"{path}: huggingface_hub is not installed; pip install 'twinnext[hub]'")
    from huggingface_hub import snapshot_download

    try:
        for weights in FILES:
            patterns = ["*.json", weights]
            folder = Path(snapshot_download(found["repo"], revision=found["revision"], allow_patterns=patterns))
            if any(folder.rglob(weights)):
                return folder
    except Exception as error:  # of the package, of its HTTP client or of the system
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise ConvertError(
            f"{path}: not downloaded: {reason}; check the name and the network (HF_TOKEN for private ones),"
            " or give the path of a downloaded folder"
        ) from None
    raise ConvertError(f"{path}: holds none of {', '.join(FILES)}")
