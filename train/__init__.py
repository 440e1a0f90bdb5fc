"""Training: one loop over a small trainer protocol; everything but the mathematics of a step.

Read `loop.py` first: it is the run. `pretrain.py` says what is trained, `data/` where the
images come from, `config.py` what can be asked for. Nothing here imports a framework.
"""
