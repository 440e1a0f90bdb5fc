"""Checkpoints of a run: saved in the background, found again to resume from, and kept where they score best."""
