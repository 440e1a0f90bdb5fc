"""`python -m experiments.stl10 --data_path stl10_binary`: what pre-training is worth on STL-10.

100,000 images of 96 x 96 without labels, 5,000 with labels, and 8,000 to evaluate on: the binary
files of https://cs.stanford.edu/~acoates/stl10. Model and recipe are those of BSP36/fcmae, flag by
flag; fashion-mnist.md says what differs. Meant for a GPU, with --processes 1. `studies.py` says what is compared.
"""

from pathlib import Path

from experiments.experiment import Experiment, arguments
from experiments.studies import PRETRAINED, SCRATCH, Study

MODEL = "--input_size 96 --patch_size 16 --depths 2 2 6 2 --dims 40 80 160 320"

_BOTH = (
    "--batch_size 128 --lr 1.5e-4 --min_lr 1.5e-5 --epochs 300 --warmup_epochs 4 --weight_decay 0.05"
    " --opt_betas 0.9 0.999 --crop_scale 0.2 1.0"
)

PRETRAIN = f"{_BOTH} --mask_ratio 0.6 --decoder_depth 1 --decoder_embed_dim 512 --norm_pix_loss True --drop_last False"

FINETUNE = f"{_BOTH} --aa none --reprob 0 --smoothing 0"


def study(data: Path) -> Study:
    """The study on the folder stl10_binary."""
    return Study(
        name="STL-10",
        unlabelled=data / "unlabeled_X.bin",
        labelled=data / "train_X.bin",
        evaluation=data / "test_X.bin",
        model=MODEL,
        pretrain=PRETRAIN,
        finetune=FINETUNE,
        labels={5_000: ""},
        tried={SCRATCH: ("",), PRETRAINED: ("",)},
    )


def main() -> None:
    """Run what is missing and print the tables."""
    parser = arguments(__doc__, "stl10")
    parser.add_argument("--data_path", type=Path, required=True, help="folder stl10_binary")
    args = parser.parse_args()
    Experiment(study(args.data_path), args).run()


if __name__ == "__main__":
    main()
