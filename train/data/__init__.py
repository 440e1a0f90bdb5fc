"""Images on their way to the trainer: sources, decoding, augmentation and the pipeline of batches.

What is drawn for an image and rides along in its batch belongs here too: masks and skipped blocks.
"""
