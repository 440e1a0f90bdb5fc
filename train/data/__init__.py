"""Images on their way to the trainer: sources, decoding, augmentation and the pipeline of batches."""
