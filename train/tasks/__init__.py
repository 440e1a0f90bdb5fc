"""The tasks of --task.

`pretrain.py` and `finetune.py` are trained; `task.py` is the protocol between them and the loop.
`evaluate.py`, `probe.py`, `reconstruct.py` and `analyse.py` use a checkpoint and need no loop.
"""
