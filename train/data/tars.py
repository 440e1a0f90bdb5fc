"""WebDataset shards: tar files of key.jpg and key.cls pairs, read at random by their offsets."""

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any, NamedTuple

import numpy as np

from train.data import advice, cache, labels
from train.data.decode import BrokenImage
from train.data.images import HEAD, is_image, without_arrays
from train.data.reading import DEFAULTS, IN_TARS, Reading, ReadOptions, probed
from train.errors import TrainError

LABEL = "cls"
UNLABELLED = "."


class Member(NamedTuple):
    """An image in a shard: where it lies, the text of its label member, and where its mask lies (None without one).

    key: the name up to the first dot of its last part; extension: what comes after that dot.
    """

    name: str
    key: str
    extension: str
    offset: int
    size: int
    label: str | None
    mask: tuple[int, int] | None = None


class Shard(NamedTuple):
    """The images of a shard, and the number of other members per extension."""

    members: list[Member]
    others: dict[str, int]


class Tars:
    """The images of some shards, sorted by shard name, in the order of each shard's members.

    Labels are the numbers or names in the members with extension `label_key`. Names are sorted
    and numbered. Without any label all images are in one class, which pre-training can use.
    """

    def __init__(self, shards: Sequence[Path], options: ReadOptions = DEFAULTS, left_out: tuple[str, ...] = ()) -> None:
        self.shards = sorted(shards)
        extension, _, field = (options.label_key or LABEL).lstrip(".").partition(":")
        self.mask_key = (options.mask_key or "").lstrip(".")
        scanned = [_scanned(shard, extension, self.mask_key) for shard in self.shards]
        chosen = [
            _chosen(shard, each.members, options.image_key) for shard, each in zip(self.shards, scanned, strict=True)
        ]
        found = [member for members in chosen for member in members]
        others = sum((Counter(each.others) for each in scanned), Counter[str]())
        if not found:
            unpack = f"{_listed(others)}; to read these files, unpack it: tar -xf {quote(str(self.shards[0]))}"
            raise TrainError(f"{self.shards[0]}: no image in it or the shards beside it{unpack if others else ''}")
        self.homes = np.repeat(np.arange(len(chosen)), [len(members) for members in chosen])
        self.keys = [member.name for member in found]
        self.offsets = np.array([member.offset for member in found])
        self.sizes = np.array([member.size for member in found])
        left_out = (*left_out, *_left_out(scanned, found, others))
        self.reading = Reading(options, left_out, _unlabelled(others, found), uses=IN_TARS)
        self.masks = self._masks(found) if self.mask_key else []
        self.classes, self.labels = self._labelled([member.label for member in found], extension, field)
        self.reading = probed(self.reading, self)

    @property
    def fingerprint(self) -> str:
        listed = "\n".join(f"{key} {size}" for key, size in zip(self.keys, self.sizes.tolist(), strict=True))
        if self.reading.options.label_key is not None:
            listed += f"\n{self.labels}"  # other labels of the same images are other data
        if self.masks:
            listed += f"\n{self.mask_key} {[size for _, size in self.masks]}"
        return hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[bytes, int, str]:
        return self._read(index, int(self.offsets[index]), int(self.sizes[index])), self.labels[index], self.name(index)

    def mask(self, index: int) -> object:
        """The file of where an image has no data."""
        return self._read(index, *self.masks[index])

    def _read(self, index: int, offset: int, size: int) -> bytes:
        """A part of the shard that holds an image."""
        with self.shards[self.homes[index]].open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise BrokenImage(f"{self.name(index)}: the shard ends inside it")
        return data

    def name(self, index: int) -> str:
        """Shard and key of an image."""
        return f"{self.shards[self.homes[index]]}: {self.keys[index]}"

    def _masks(self, found: Sequence[Member]) -> list[tuple[int, int]]:
        """Offset and size of the mask of each image."""
        missing = next((place for place, member in enumerate(found) if member.mask is None), None)
        if missing is not None:
            raise TrainError(
                f"{self.name(missing)}: has no .{self.mask_key} file, which --mask_key names; write it, or leave the"
                " image out of the shard"
            )
        return [member.mask for member in found if member.mask]

    def _labelled(self, texts: Sequence[str | None], extension: str, field: str) -> tuple[tuple[str, ...], list[int]]:
        """The classes and the label of each image."""
        missing = texts.index(None) if None in texts else None
        if missing is None:
            return self._numbered([_value(text or "", extension, field, self.name(i)) for i, text in enumerate(texts)])
        if self.reading.options.label_key is None and set(texts) == {None}:
            return (UNLABELLED,), [0] * len(texts)
        other = f"; --label_key names it: {self.reading.unlabelled}"
        if set(texts) != {None}:
            other = ", other images have; write the missing ones, or leave these images out of the shard"
        raise TrainError(f"{self.name(missing)}: has no .{extension} file{other}")

    def _numbered(self, found: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
        """The classes and the label of each image from its label's text; one class if no label is published."""
        if set(found) == {str(labels.HIDDEN)}:
            self.reading = self.reading._replace(unlabelled=labels.not_published("label"))
            return (UNLABELLED,), [0] * len(found)
        wrong = next((place for place, text in enumerate(found) if not labels.is_label(text)), None)
        if wrong is not None:
            raise TrainError(f"{self.name(wrong)}: its label is {found[wrong]!r}, neither a class number nor a name")
        return labels.number(found)


def _scanned(path: Path, label: str, mask: str) -> Shard:
    """The images of a shard with their labels and masks; a shard that is provably unchanged is not read again."""
    try:
        stamp = cache.stamp(path.stat())
        asked = {"stamp": stamp, "label": label, "mask": mask}
        shard = _known(path, asked) if stamp else None
        if shard is None:
            shard = _scan(path, label, mask)
            if stamp:
                cache.store("tar", path, {**asked, "shard": shard})
    except OSError as error:
        raise TrainError(f"{path}: {error.strerror or error}") from None
    except tarfile.TarError as error:
        why = advice.misnamed(path) or f"{path}: not an uncompressed tar of images and labels, or damaged ({error})"
        raise TrainError(why) from None
    return shard


def _known(path: Path, asked: dict[str, Any]) -> Shard | None:
    try:
        stored = cache.load("tar", path)
        members, others = stored.pop("shard")
        if stored != asked:
            return None
        return Shard([Member(*member) for member in members], dict(others))
    except (AttributeError, TypeError, KeyError, ValueError):
        return None


def _scan(path: Path, label: str, mask: str) -> Shard:
    images: list[tuple[str, str, str, int, int]] = []
    texts: dict[str, str] = {}
    masks: dict[str, tuple[int, int]] = {}
    others: Counter[str] = Counter()
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            file = PurePosixPath(member.name)
            if not member.isfile() or file.name.startswith("."):
                continue
            stem, _, extension = file.name.partition(".")
            key = str(file.with_name(stem))
            if extension == label:
                texts[key] = _content(archive, member).decode(errors="surrogateescape").strip()
            elif mask and extension == mask:
                masks[key] = member.offset_data, member.size
            elif is_image(file.name, partial(_content, archive, member, HEAD)):
                images.append((member.name, key, extension, member.offset_data, member.size))
            else:
                others[extension] += 1
    return Shard([Member(*image, texts.get(image[1]), masks.get(image[1])) for image in images], dict(others))


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, size: int = -1) -> bytes:
    content = archive.extractfile(member)
    return content.read(size) if content else b""


def _chosen(path: Path, members: list[Member], image_key: str | None) -> list[Member]:
    """The images of a shard, one per key; TrainError if a key has several."""
    if image_key is not None:
        members = [member for member in members if member.extension == image_key.lstrip(".")]
    else:
        kept = {*without_arrays([member.name for member in members])}
        members = [member for member in members if member.name in kept]
    first: dict[str, Member] = {}
    for member in members:
        other = first.setdefault(member.key, member)
        if other is not member:
            raise TrainError(f"{path}: {_two_images(other, member)}")
    return members


def _two_images(one: Member, other: Member) -> str:
    if one.extension == other.extension:
        return f"two members are called {one.name}; write the shard again with different keys"
    return (
        f"the key {one.key} has two images, .{one.extension} and .{other.extension};"
        f" give --image_key {one.extension} or --image_key {other.extension}"
    )


def _value(text: str, extension: str, field: str, name: str) -> str:
    """A label: the text itself, or a field of the JSON in it."""
    if not field:
        if text.startswith("{"):
            raise TrainError(f"{name}: its label is a JSON object; give --label_key {extension}:FIELD")
        return text
    try:
        value: Any = json.loads(text)
    except ValueError:
        raise TrainError(f"{name}: its label is not JSON; give --label_key without :{field}") from None
    for part in field.split("."):
        if not isinstance(value, dict) or part not in value:
            known = f"it has {', '.join(value)}" if isinstance(value, dict) else "it is no object"
            raise TrainError(f"{name}: its JSON has no field {part}; {known}")
        value = value[part]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TrainError(f"{name}: the field {field} is {json.dumps(value)}, neither a number nor a name")
    return str(value)


def _left_out(scanned: Sequence[Shard], found: Sequence[Member], others: Counter[str]) -> Iterator[str]:
    images = sum(len(shard.members) for shard in scanned)
    if images > len(found):
        yield f"{images - len(found):,} images of other keys"
    if others:
        yield f"{others.total():,} members that are no images{_listed(others)}"


def _listed(others: Counter[str]) -> str:
    return f" ({', '.join(f'.{name}' for name, _ in others.most_common(5))})" if others else ""


def _unlabelled(others: Counter[str], found: Sequence[Member]) -> str:
    """What to do about missing labels."""
    keys = [f"{name}:FIELD" if name.endswith("json") else name for name in others if name.endswith(("json", "txt"))]
    if keys:
        return f"there is no .{LABEL} file beside them; give --label_key {' or --label_key '.join(sorted(keys))}"
    if any("/" in member.name for member in found):
        return f"there is no .{LABEL} file beside them; if folders are the classes, unpack them: tar -xf FILE -C FOLDER"
    return f"write a label beside each image, such as 000.{LABEL} beside 000.jpg"
