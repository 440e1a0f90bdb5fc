"""`python -m experiments.loss_curves`: the loss of the digits run in both frameworks, step by step.

Trains with each backend from the same seed, writes docs/loss_curves.png and prints the largest
relative difference between the curves.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

import backends

PICTURE = Path(__file__).parents[1] / "docs" / "loss_curves.png"


def main() -> None:
    """Train, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=100)
    steps = parser.parse_args().steps
    torch, jax = (losses(backend, steps) for backend in backends.NAMES)
    gaps = [abs(a - b) / abs(b) for a, b in zip(torch, jax, strict=True)]
    draw(torch, jax, gaps)
    print(f"{steps} steps, loss {torch[0]:.4f} to {torch[-1]:.4f}; largest relative gap {max(gaps):.1e}")


def losses(backend: str, steps: int) -> list[float]:
    """The loss of every step of a run on the embedded digits."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--backend", backend, "--output_dir", folder, "--print_freq", "1", "--max_steps", str(steps)]
        quiet = ["--save_ckpt", "False", "--picture_freq", "0"]
        subprocess.run([sys.executable, "-m", "train", *flags, *quiet], check=True, stdout=subprocess.DEVNULL)
        lines = Path(folder, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


def draw(torch: list[float], jax: list[float], gaps: list[float]) -> None:
    """Plot the curves, and their relative difference below."""
    steps = range(1, len(torch) + 1)
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 5), height_ratios=(2, 1), sharex=True, layout="constrained")
    above.plot(steps, torch, color="#ee4c2c", linewidth=4, alpha=0.45, label="torch")
    above.plot(steps, jax, color="#222222", linewidth=1, label="JAX")
    above.set_ylabel("loss")
    above.legend(frameon=False)
    below.semilogy(steps, [max(gap, 1e-9) for gap in gaps], color="#222222", linewidth=1)
    below.set_ylabel("relative gap")
    below.set_xlabel("step")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=130)


if __name__ == "__main__":
    main()
