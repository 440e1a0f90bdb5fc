"""Training: one loop over a small trainer protocol, in either framework.

Start with `loop.py`, the training loop; `run.py` sets it up. The packages, lowest first, each of
which imports only from those before it:

    errors.py      the exceptions
    config/        flags, recipes and the command line
    data/          images, augmentation and batches
    checkpoints/   saving and resuming
    logs/          metrics.jsonl, TensorBoard, Weights & Biases
    report/        the HTML report of a run, its plots and pictures
    tasks/         pre-training, fine-tuning, and what is done with a checkpoint

Nothing here imports a framework.
"""
