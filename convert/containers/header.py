"""What our files say about themselves beside their arrays: model, format and meta, as JSON under one key."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convert import models
from convert.arrays import Entries
from convert.content import Content
from convert.errors import ConvertError
from spec import Model

KEY = "twinnext"


def fields(content: Content) -> dict[str, Any]:
    """What a file records about its content, as values that JSON can hold."""
    model = {} if content.model is None else {"model": models.describe(content.model)}
    return {"format": content.format, **model, "meta": content.meta}


def parsed(about: Mapping[str, Any]) -> tuple[Model | None, str | None]:
    """The model and the format's name in such fields, or None."""
    model, format = about.get("model"), about.get("format")
    return models.build(model) if isinstance(model, Mapping) else None, format if isinstance(format, str) else None


def content_of(entries: Entries, about: Any, path: Path) -> Content:
    """The entries with the model, format and meta that `fields` described; about may be JSON text, or None."""
    try:
        about = json.loads(about) if isinstance(about, str) else about or {}
        model, format = parsed(about)
        return Content(entries, meta=dict(about.get("meta", {})), model=model, format=format)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConvertError(f"{path}: its metadata {KEY!r} is not ours: {error}") from error


def own(comment: str) -> Mapping[str, Any] | None:
    """Our fields in a comment of the form {KEY: fields}, or None where another program wrote it."""
    try:
        found = json.loads(comment)
    except ValueError:
        return None
    return found.get(KEY) if isinstance(found, dict) else None
