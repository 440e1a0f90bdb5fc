"""What our files say about themselves beside their arrays: model, format and meta, as JSON under one key."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convert import models
from convert.arrays import Entries
from convert.content import Content
from convert.errors import ConvertError

KEY = "twinnext"


def fields(content: Content) -> dict[str, Any]:
    """What a file records about its content, as values that JSON can hold."""
    return models.header(content.model, content.format) | {"meta": content.meta}


def content_of(entries: Entries, about: Any, path: Path) -> Content:
    """The entries with the model, format and meta that `fields` described; about may be JSON text, or None."""
    try:
        about = json.loads(about) if isinstance(about, str) else about or {}
        model, format = models.parse_header(about)
        return Content(entries, meta=dict(about.get("meta", {})), model=model, format=format)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConvertError(f"{path}: its metadata {KEY!r} is not ours: {error}") from error


def own(comment: str) -> Mapping[str, Any] | None:
    """What `wrapped` wrote, or None for a comment that another program wrote."""
    try:
        found = json.loads(comment)
    except ValueError:
        return None
    return found.get(KEY) if isinstance(found, dict) else None


def wrapped(content: Content) -> dict[str, Any]:
    """The fields under our key, for a place that other programs may use as well."""
    return {KEY: fields(content)}
