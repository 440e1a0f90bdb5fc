"""`python -m examples.own_loop`: the sparse encoder in a hand-written pre-training loop, here in torch.

The model below is somebody else's but for its encoder, which computes at the visible patches only.
"""

import numpy as np
import torch
from torch import Tensor, nn

import twinnext as tn
from examples.scenes import scenes

OURS = tn.fcmae(depths=(1, 1, 1), dims=(24, 48, 96), in_chans=1, stem_stride=2, image_size=32, decoder_depth=0)
PATCH, VISIBLE = OURS.encoder.patch_size, tn.visible_patches(OURS)


class MaskedAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = tn.build(tn.Backbone(OURS.encoder), "torch")
        self.proj = nn.Linear(self.encoder.feature_info()[-1].channels, OURS.decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(OURS.decoder_dim))
        self.pred = nn.Linear(OURS.decoder_dim, OURS.patch_values)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        (x,) = self.encoder.features(images, [2], mask, visible=VISIBLE)  # N G_h G_w C
        x = torch.where(mask[..., None], self.mask_token, self.proj(x))
        patches = images.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).permute(0, 1, 2, 4, 5, 3).flatten(3)
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        error = (self.pred(x) - (patches - mean) / (variance + 1e-6).sqrt()).square().mean(-1)
        return torch.where(mask, error, 0).sum() / mask.sum()


def random_mask(rng: np.random.Generator, count: int) -> Tensor:
    """(N, G_h, G_w), True = removed; every image keeps VISIBLE patches."""
    removed = np.tile(np.arange(OURS.grid[0] * OURS.grid[1]) >= VISIBLE, (count, 1))
    return torch.from_numpy(rng.permuted(removed, axis=1).reshape(count, *OURS.grid))


def train(model: nn.Module, steps: int = 20) -> list[float]:
    """The loss of every step of a plain loop; model: (images, mask) -> loss."""
    optimizer, rng, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), np.random.default_rng(0), []
    for step in range(steps):
        images = torch.from_numpy(scenes(step)[0])
        loss = model(images, random_mask(rng, len(images)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    theirs, ours = MaskedAutoencoder(), tn.build(OURS, "torch")
    theirs.load_state_dict(ours.state_dict())  # the same first weights, under the same names
    print(train(theirs))
