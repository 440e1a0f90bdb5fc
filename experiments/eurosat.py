"""`python -m experiments.eurosat --data_path TRAIN --eval_data_path TEST`: what pre-training is worth on EuroSAT.

27,000 satellite images of 64 x 64 in ten class folders, of which one's own split makes two folders; other
folders of small RGB images of one size work too. `studies.py` says what is compared.
"""

from pathlib import Path

from experiments.experiment import Experiment, arguments
from experiments.studies import PRETRAINED, SCRATCH, Study

MODEL = "--input_size 64 --patch_size 16 --depths 2 2 4 --dims 40 80 160"


def study(train: Path, test: Path) -> Study:
    """The study on two folders of class folders."""
    return Study(
        name="EuroSAT",
        unlabelled=train,
        labelled=train,
        evaluation=test,
        model=MODEL,
        pretrain="--epochs 100 --warmup_epochs 5 --batch_size 128 --blr 4e-3 --rot90 0.75 --norm_pix_loss True",
        finetune="--batch_size 50 --aa none --reprob 0 --crop_scale 0.6 1.0 --weight_decay 0.05 --rot90 0.75",
        labels={100: "--epochs 120 --warmup_epochs 12", 1_000: "--epochs 30 --warmup_epochs 3"},
        tried={
            SCRATCH: ("--blr 8e-3", "--blr 1.6e-2", "--blr 3.2e-2"),
            PRETRAINED: ("--blr 4e-3", "--blr 8e-3", "--blr 1.6e-2"),
        },
    )


def main() -> None:
    """Run what is missing and print the tables."""
    parser = arguments(__doc__, "eurosat")
    parser.add_argument("--data_path", type=Path, required=True, help="folder of the training images' class folders")
    parser.add_argument("--eval_data_path", type=Path, required=True, help="folder of the evaluation images'")
    args = parser.parse_args()
    Experiment(study(args.data_path, args.eval_data_path), args).run()


if __name__ == "__main__":
    main()
