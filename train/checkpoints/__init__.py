"""A run's checkpoints: written in the background, found again, and kept where they score best."""
