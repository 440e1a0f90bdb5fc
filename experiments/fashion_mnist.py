"""`python -m experiments.fashion_mnist`: what pre-training is worth on Fashion-MNIST with 100 to 10,000 labels.

70,000 images of 28 x 28, which Debian's package dataset-fashion-mnist installs; --data_path takes a
folder of the four IDX files from elsewhere. `studies.py` says what is compared.
"""

import sys
from pathlib import Path

from experiments.experiment import Experiment, arguments
from experiments.studies import PRETRAINED, SCRATCH, Study

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
TEST = "t10k-images-idx3-ubyte"

MODEL = "--input_size 32 --patch_size 8 --depths 2 2 --dims 48 96 --in_chans 1 --mean 0.286 --std 0.353"
"""Stages at strides 4 and 8; 16 patches per image, of which the encoder sees six."""

PRETRAIN = (
    "--epochs 12 --warmup_epochs 1 --batch_size 128 --blr 4e-3 --crop_scale 0.8 1.0 --norm_pix_loss True"
    " --decoder_embed_dim 48 --picture_freq 0 --parity_check False --save_ckpt_num 1"
)
"""A narrow decoder and pixels as they are, as for the digits (few-labels.md)."""

FINETUNE = "--batch_size 50 --aa none --reprob 0 --crop_scale 0.6 1.0 --weight_decay 0.05"

LABELS = {
    100: "--epochs 200 --warmup_epochs 20",
    300: "--epochs 100 --warmup_epochs 10",
    1_000: "--epochs 40 --warmup_epochs 4",
    10_000: "--epochs 6 --warmup_epochs 0.6",
}
"""400, 600, 800 and 1,200 updates of 50 images."""

TRIED = {
    SCRATCH: ("--blr 1e-2", "--blr 2e-2"),
    PRETRAINED: ("--blr 5e-3", "--blr 1e-2"),
}


def main() -> None:
    """Find the data, run what is missing and print the tables."""
    parser = arguments(__doc__, "fashion-mnist")
    parser.add_argument("--data_path", type=Path, default=DEBIAN, help="folder of the four IDX files")
    args = parser.parse_args()
    Experiment(study(args.data_path), args).run()


def study(data: Path) -> Study:
    """The study on the files in a folder; exits if they are not there."""
    test = next((file for file in (data / f"{TEST}.gz", data / TEST) if file.exists()), None)
    if test is None:
        sys.exit(f"{data}: no {TEST} in it; apt-get install dataset-fashion-mnist, or give --data_path FOLDER")
    return Study(
        name="Fashion-MNIST",
        unlabelled=data,
        labelled=data,
        evaluation=test,
        model=MODEL,
        pretrain=PRETRAIN,
        finetune=FINETUNE,
        labels=LABELS,
        tried=TRIED,
        repeated=(300,),
    )


if __name__ == "__main__":
    main()
