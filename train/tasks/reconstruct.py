"""`--task reconstruct`: pictures of reconstructions by a masked autoencoder, from a checkpoint of any format."""

from collections.abc import Callable
from itertools import islice

import numpy as np

import backends
import spec
from backends.protocol import Backend
from train.config import Config
from train.data.masks import masks_of
from train.data.no_data import split
from train.data.pixels import normalise
from train.data.transforms import centre_crop
from train.report.pictures import caption, reconstruct, triptych
from train.tasks import weights
from train.tasks.images import open_images, read_images
from train.tasks.output import make_output_dir
from train.tasks.pretrain import PICTURE_POSITION, PICTURED


def run(config: Config, load: Callable[[str], Backend] = backends.load) -> None:
    """Write reconstruction-00.png, -01.png, ... to the output folder, with eight images each.

    The masks depend only on --seed and the index of the image, so checkpoints can be compared.
    """
    path = weights.path_of(config)
    model, arrays = weights.autoencoder(config, path)
    source = open_images(config)  # report all mistakes first
    masks = masks_of(config, model, source)
    backend, folder = load(config.run.backend), make_output_dir(config)
    module = backend.build(model, dtype=config.run.precision, device=config.run.device)
    backend.set_arrays(module, arrays)
    visible, patches = spec.visible_patches(model), model.grid[0] * model.grid[1]
    print(f"{spec.count(model):,} parameters from {path}; {visible} of {patches} patches visible")
    if note := caption(model.encoder.in_chans, source.reading.values.dtype, config.run.picture_channels):
        print(f"pictures: {note}")
    crops = (centre_crop(image, config.data.image_size) for image in read_images(config, source))
    for number, batch in enumerate(iter(lambda: list(islice(crops, PICTURED)), [])):
        pixels, no_data = split(np.stack(batch), model.encoder.in_chans)
        positions = PICTURE_POSITION + PICTURED * number + np.arange(len(batch))
        mask = masks(positions, pixels, no_data)["mask"]
        out = backend.forward(
            module, normalise(pixels, config.data.mean, config.data.std), mask, engine=config.run.engine
        )
        reconstructed = reconstruct(pixels, mask, out["prediction"], model, config.data.mean, config.data.std)
        file = folder / f"reconstruction-{number:02d}.png"
        triptych(pixels, mask, reconstructed, model.encoder.patch_size, config.run.picture_channels).save(file)
        print(f"{file}: {len(batch)} images, loss {float(out['loss']):.4f}")
