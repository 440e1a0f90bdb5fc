"""`python -m examples.own_loop`: the sparse encoder in a hand-written pre-training loop, here in torch.

The model below is written by hand but for its encoder, which computes at the visible patches only. With the
same weights it has the loss of `twinnext.fcmae`, bit for bit.
"""

import numpy as np
import torch
from torch import Tensor, nn

import twinnext as tn
from examples.scenes import scenes

OURS = tn.fcmae(depths=(1, 1, 1), dims=(24, 48, 96), in_chans=1, stem_stride=2, image_size=32, decoder_dim=64)
PATCH, VISIBLE = OURS.encoder.patch_size, tn.visible_patches(OURS)


class Block(nn.Module):
    """The decoder: a dense ConvNeXt V2 block."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.grn = nn.ParameterDict({"gamma": torch.zeros(4 * dim), "beta": torch.zeros(4 * dim)})

    def forward(self, x: Tensor) -> Tensor:  # N H W C
        y = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = nn.functional.gelu(self.pwconv1(self.norm(y)))
        size = y.square().sum((1, 2), keepdim=True).sqrt()
        scale = 1 + self.grn["gamma"] * (size / (size.mean(-1, keepdim=True) + 1e-6))
        return x + self.pwconv2(torch.addcmul(self.grn["beta"], y, scale))


class MaskedAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = tn.build(tn.Backbone(OURS.encoder), "torch")
        self.proj = nn.Linear(self.encoder.feature_info()[-1].channels, OURS.decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(OURS.decoder_dim))
        self.decoder = nn.Sequential(Block(OURS.decoder_dim))
        self.pred = nn.Linear(OURS.decoder_dim, OURS.patch_values)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        (x,) = self.encoder.features(images, [2], mask, visible=VISIBLE)  # N G_h G_w C
        x = self.decoder(torch.where(mask[..., None], self.mask_token, self.proj(x)))
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
