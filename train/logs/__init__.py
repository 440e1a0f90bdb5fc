"""The logs of a run: metrics.jsonl, TensorBoard events, Weights & Biases, NaN reports, and the terminal.

Nothing here knows what is trained; `train/report/` makes the page of it.
"""
