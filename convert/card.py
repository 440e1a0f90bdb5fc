"""The model card of a hub folder: what the checkpoint knows of itself; the licence is the user's to give."""

from collections.abc import Iterator, Mapping
from typing import Any

import spec
from convert.content import Content
from convert.errors import listed
from convert.formats.huggingface import FAMILIES
from convert.preparation import image_size, recorded, unit
from convert.report import name_of
from spec import Classifier, Model
from spec.console import one_line

HEADER = """---
library_name: transformers
pipeline_tag: {task}
tags:
- {family}
- twinnext
# license: not known to the program that wrote this; give yours, e.g. license: mit
---
"""


def card(name: str, content: Content, model: Model) -> str:
    """README.md of a folder of that name: a header for the hub, a table of facts, and how to use the model."""
    classifies = isinstance(model, Classifier) and model.num_classes
    task = "image-classification" if classifies else "image-feature-extraction"
    rows = [f"| {key} | {_cell(value)} |" for key, value in _facts(content, model)]
    table = "\n".join(["| | |", "|---|---|", *rows])
    use = f'```python\nfrom transformers import pipeline\n\nprint(pipeline("{task}", model="{name}")("image.jpg"))\n```'
    return f"{HEADER.format(task=task, family=FAMILIES[model.encoder.block])}\n# {_cell(name)}\n\n{table}\n\n{use}\n"


def _facts(content: Content, model: Model) -> Iterator[tuple[str, Any]]:
    """What is known, in the order of the card."""
    meta, images = content.meta, recorded(content.meta)
    config = meta["config"] if isinstance(meta.get("config"), Mapping) else {}
    yield "model", f"{name_of(model)}, {spec.count(model):,} parameters, {model.encoder.in_chans} image channels"
    if content.classes:
        yield "classes", f"{len(content.classes)}: {listed(content.classes)}"
    if size := image_size(images):
        yield "image size", f"{size[0]} x {size[1]} px"
    if "mean" in images and "std" in images:
        yield "normalisation", f"mean {_words(images['mean'])}, std {_words(images['std'])}, {unit(meta)}"
    known = {"data": "data_path", "recipe": "recipe", "started from": "finetune"}
    yield from ((key, config[flag]) for key, flag in known.items() if config.get(flag))
    for key in ("epoch", "command", "versions"):
        if key in meta:
            yield key, f"`{meta[key]}`" if key == "command" else meta[key]
    if isinstance(scores := meta.get("scores"), Mapping):
        yield "scores on the validation images", ", ".join(f"{key} {value:.4g}" for key, value in scores.items())


def _words(values: Any) -> str:
    return " ".join(map(str, values))


def _cell(value: Any) -> str:
    """A value as one cell of a table."""
    return one_line(str(value)).replace("|", "\\|")
