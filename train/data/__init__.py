"""The input pipeline: data sources, decoding, augmentation and prefetched batches.

Masks and drop-path decisions are drawn here too, because they are part of a batch.
"""
