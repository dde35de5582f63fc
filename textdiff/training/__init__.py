"""Training of any model: trainer, optimizers, checkpoints, run folders, logs, sharding."""
