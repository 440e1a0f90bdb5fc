"""What --task names: models that are trained (`task.py` says what the loop asks of them), and uses of a checkpoint.

`pretrain.py` and `finetune.py` are trained; to evaluate, probe, reconstruct and analyse needs no loop.
"""
