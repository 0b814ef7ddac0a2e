"""Training on several devices or machines: which strategy, and who of several processes keeps the results."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfprune.errors import InputError, look_up
from tfprune.keras import tf
from tfprune.silence import quiet_stderr


def build_strategy(name: str) -> Any:
    """Return a strategy of `tf.distribute` for a name in `tfprune.training.DISTRIBUTIONS`.

    `mirrored` takes all GPUs of this machine, `multi_worker` the machines that TF_CONFIG lists; call it before
    TensorFlow computes anything. Models, optimizers and controllers are then made inside `strategy.scope()`.

    Raises:
        InputError: for an unknown name, or a TF_CONFIG that is missing or incomplete.
    """
    builders = {"mirrored": tf.distribute.MirroredStrategy, "multi_worker": tf.distribute.MultiWorkerMirroredStrategy}
    build = look_up("distribution", name, builders)
    if name == "multi_worker":
        _read_config()
    with quiet_stderr():
        return build()


def is_chief(distribution: str | None) -> bool:
    """Return whether this process keeps the results: it is alone, or worker 0 (or `chief`) of TF_CONFIG."""
    if distribution != "multi_worker":
        return True
    config = _read_config()
    kind, index = config["task"]["type"], config["task"]["index"]
    return kind == "chief" or (kind == "worker" and index == 0 and "chief" not in config["cluster"])


@contextmanager
def own_folder(folder: Path, distribution: str | None) -> Iterator[Path]:
    """Yield the folder in which this process keeps its stages: the run folder, or a scratch copy of its stages.

    All processes of a training take the same steps, so they save and restore alike; only the chief's folder stays.
    A start after a kill begins with the chief's states everywhere, so `folder` has to be on a disk that all share.
    """
    if is_chief(distribution):
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch, folder.name)
        if (folder / "stages").exists():
            shutil.copytree(folder / "stages", place / "stages")
        yield place


def shard_batches(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return a dataset of which each worker takes its share of every batch."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def _read_config() -> dict[str, Any]:
    given = os.environ.get("TF_CONFIG", "")
    form = '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        config = json.loads(given)
        config["cluster"][config["task"]["type"]][config["task"]["index"]]
    except (ValueError, KeyError, IndexError, TypeError):
        raise InputError(
            f"training.distribution is multi_worker, and the variable TF_CONFIG is {given!r}; on each machine it has "
            f"to list all workers and say which one this is: {form}"
        ) from None
    return config
