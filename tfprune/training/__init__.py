"""Stages of training (train, prune, fine-tune): one resumable fit for recipes and for scripts.

Importing this package loads no TensorFlow; `tfprune.training.stage` and `.optimizers` do.
"""

from __future__ import annotations

OPTIMIZERS = ("sgd", "adam", "adamw")
LEARNING_RATE_SCHEDULES = ("constant", "cosine", "triangular", "triangular2", "on_plateau")
DISTRIBUTIONS = ("mirrored", "multi_worker")
"""Several devices of one machine, or several machines (TF_CONFIG)."""
