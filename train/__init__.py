"""Training: one loop over a small trainer protocol; everything but the mathematics of a step.

Read `loop.py` first: it is the run. What runs one, or compiles its step, stands in this folder;
the rest has rooms, the lowest first, each of which imports from those named before it only:

    errors.py    the one error of all
    command/     what can be asked of a run, and how
    data/        where the images come from, and the draws that ride along with them
    record/      what a run leaves behind
    report/      a page of that
    tasks/       what is trained, and what is done with a checkpoint

Nothing here imports a framework.
"""
