"""`python -m examples.segment_torch`: a segmentation head on feature maps, in a plain torch loop."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import twinnext as tn
from examples.scenes import CLASSES, mean_iou, scenes

MODEL = tn.encoder(depths=(1, 1, 1), dims=(24, 48, 96), in_chans=1, stem_stride=2, out_norm=True)


class Head(nn.Module):
    """A feature pyramid: maps are added from coarse to fine, and the sum is classified per pixel."""

    def __init__(self, channels: Sequence[int], width: int = 32) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(size, width, 1) for size in channels)
        self.classify = nn.Conv2d(width, CLASSES, 3, padding=1)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        x = self.lateral[-1](maps[-1])
        for lateral, finer in zip(self.lateral[-2::-1], maps[-2::-1], strict=True):
            x = lateral(finer) + F.interpolate(x, scale_factor=2)
        return F.interpolate(self.classify(F.gelu(x)), size, mode="bilinear")  # N classes H W


def train(steps: int = 100) -> float:
    """Train on made scenes; returns the mean intersection over union on scenes of other digits."""
    torch.manual_seed(0)
    encoder = tn.build(MODEL, "torch")
    head = Head([info.channels for info in encoder.feature_info()])
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=4e-3)
    for step in range(steps):
        images, labels = map(torch.from_numpy, scenes(step))
        logits = head(encoder.features(images, layout="NCHW"), images.shape[1:3])
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    images, labels = scenes(0, 64, held_out=True)
    with torch.no_grad():
        logits = head(encoder.features(torch.from_numpy(images), layout="NCHW"), images.shape[1:3])
    return mean_iou(logits.argmax(1).numpy(), labels)


if __name__ == "__main__":
    print(f"mean IoU {train():.3f}")
