"""What a run leaves behind, and finds again when it goes on: checkpoints, metrics, evidence, curves and pictures.

Nothing here knows what is trained; `train/report/` makes a page of it.
"""
