"""What an exported program takes and returns, the same in every target."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from backends import api
from spec import FCMAE, Classifier, Model


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a program: float32 arrays, whatever it computes in; any batch size, height and width.

    images (N, H, W, C), already normalised; mask (N, G_h, G_w), 1 = removed, if masked. stages: those whose
    feature maps it returns; None: the model's own outputs. layout: "NHWC", or "NCHW" for images and maps.
    """

    model: Model
    stages: tuple[int, ...] | None = None
    masked: bool = False
    layout: str = "NHWC"

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        features: bool = False,
        stages: Iterable[int] | None = None,
        masked: bool = False,
        layout: str = "NHWC",
    ) -> Self:
        """The signature for a model; SpecError for stages or a layout that it cannot have.

        features: return feature maps, of all stages unless given. A masked autoencoder always takes a mask,
        unless it returns feature maps.
        """
        api.map_axes(layout)
        maps = features or stages is not None or not isinstance(model, Classifier | FCMAE)
        chosen = tuple(info.stage for info in model.encoder.feature_info(stages)) if maps else None
        return cls(model, chosen, masked or (not maps and isinstance(model, FCMAE)), layout)

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("images", "mask") if self.masked else ("images",)

    @property
    def outputs(self) -> tuple[str, ...]:
        """logits, or features without a head; encoded and prediction of an autoencoder; stage0, stage1, ..."""
        if self.stages is not None:
            return tuple(f"stage{stage}" for stage in self.stages)
        if isinstance(self.model, FCMAE):
            return "encoded", "prediction"
        return ("logits",) if self.model.num_classes else ("features",)  # type: ignore[union-attr]

    def shapes(self, images: Any, rows: Any, columns: Any) -> tuple[tuple[Any, ...], ...]:
        """The shape of each input, for a number of images of rows x columns patches; sizes may be symbols."""
        patch, channels = self.model.encoder.patch_size, self.model.encoder.in_chans
        sides = (images, patch * rows, patch * columns, channels)
        shape = tuple(sides[axis] for axis in api.map_axes(self.layout))
        return (shape, (images, rows, columns)) if self.masked else (shape,)

    def described(self) -> tuple[str, ...]:
        """The shape of each input in words: "(N, 32 * G_h, 32 * G_w, 3)", "(N, G_h, G_w)"."""
        patch, channels = self.model.encoder.patch_size, self.model.encoder.in_chans
        sides = ("N", f"{patch} * G_h", f"{patch} * G_w", str(channels))
        images = ", ".join(sides[axis] for axis in api.map_axes(self.layout))
        return (f"({images})", "(N, G_h, G_w)") if self.masked else (f"({images})",)

    def compute(self, net: Any, images: Any, mask: Any = None) -> tuple[Any, ...]:
        """The outputs of a module of either framework, on its arrays."""
        options = {"engine": "masked", "kernels": "plain"}
        if self.layout == "NCHW":
            images = images.swapaxes(1, 2).swapaxes(2, 3)
        if self.stages is not None:
            return tuple(net.features(images, self.stages, mask, layout=self.layout, **options))
        found = net(images, mask, **options)
        return tuple(self._laid_out(found[name]) for name in self.outputs)

    def _laid_out(self, value: Any) -> Any:
        """A map (N, H, W, C) in the layout; other values unchanged."""
        return value.swapaxes(2, 3).swapaxes(1, 2) if self.layout == "NCHW" and value.ndim == 4 else value
