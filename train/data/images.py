"""Tell image files from others, by suffix or by their first bytes."""

import os
import re
from collections.abc import Callable, Sequence

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
    *(".jp2", ".j2k", ".jpx", ".avif", ".npy"),
)
OTHER_SUFFIXES = (
    *(".txt", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".toml", ".md", ".html", ".py", ".cls"),
    *(".npz", ".mat", ".h5", ".pt", ".pth", ".safetensors", ".zip", ".gz", ".tar", ".parquet", ".arrow"),
)
"""Suffixes of files that are known to be no images. Files of any other suffix, or of none, are looked into."""

HEAD = 32
"""Bytes that tell an image's format."""

SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0|II[*+]\0|MM\0[*+]|P[1-6][ \t\r\n]"
    rb"|....ftypavi[fs]|\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    re.DOTALL,
)


def read_head(path: str | os.PathLike[str]) -> bytes:
    """The first HEAD bytes of a regular file; none of anything else, or if it cannot be read."""
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""


def is_image(name: str, head: Callable[[], bytes]) -> bool:
    """Whether a file is an image. head: reads its first HEAD bytes, called only if the suffix does not tell."""
    lower = name.lower()
    if lower.endswith(SUFFIXES):
        return True
    return not lower.endswith(OTHER_SUFFIXES) and bool(SIGNATURE.match(head()))


def without_arrays(names: Sequence[str]) -> Sequence[str]:
    """The images among image files: without the .npy files, which may be anything, unless all are."""
    return [name for name in names if not name.lower().endswith(".npy")] or names
