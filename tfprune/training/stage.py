"""One stage of training: compile and fit, with the best epoch kept, and resumable after a kill."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.records import write_text
from tfprune.training.state import load_variables, save_variables

MONITOR = "val_mean_iou"


@dataclass(frozen=True)
class StageResult:
    """What a finished stage leaves: the model holds the weights of `best_epoch` (counted from 0)."""

    name: str
    epochs: int
    best_epoch: int
    best_val_mean_iou: float | None
    seconds: float
    history: tuple[dict[str, float], ...]


def set_determinism(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, and ask TensorFlow for reproducible operations.

    It holds for the whole process: TensorFlow has no way to confine it to a model.
    """
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


class _Plateau(keras.callbacks.ReduceLROnPlateau):
    """Lowers the learning rate when an epoch from `from_epoch` on is no better than those before it."""

    def __init__(self, *, from_epoch: int, **options: Any) -> None:
        super().__init__(**options)
        self.from_epoch = from_epoch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Look at the score once the masks are closed."""
        if epoch >= self.from_epoch:
            super().on_epoch_end(epoch, logs)


class _Keeper(keras.callbacks.Callback):
    """Keeps history, best weights and the state to resume from; the last callback of a stage."""

    def __init__(
        self, *, name: str, folder: Path | None, seed: int, best_from_epoch: int, stateful: Sequence[Any], report: Any
    ) -> None:
        super().__init__()
        self.name, self.folder, self.seed = name, folder, seed
        self.best_from_epoch, self.stateful, self.report = best_from_epoch, stateful, report
        self.rows: list[dict[str, float]] = []
        self.best_epoch, self.best_score = -1, -math.inf
        self.best_weights: list[Any] = []
        self.first_epoch = 0
        self.stopped = False

    def _groups(self) -> dict[str, list[Any]]:
        return {"model": self.model.weights, "optimizer": list(self.model.optimizer.variables)}

    def restore(self) -> None:
        """Take up the state of an earlier start, if there is one."""
        if self.folder is None or not (self.folder / "state.npz").exists():
            return
        counters = load_variables(self.folder / "state.npz", self._groups())
        self.rows = counters["rows"]
        self.best_epoch, self.best_score = counters["best_epoch"], counters["best_score"]
        self.first_epoch, self.stopped = counters["next_epoch"], counters["stopped"]

    def on_train_begin(self, logs: Any = None) -> None:
        """Restore the counters of the other callbacks, which have just reset themselves."""
        if self.first_epoch and self.stateful and self.folder is not None:
            counters = load_variables(self.folder / "state.npz", {})
            for callback, values in zip(self.stateful, counters["callbacks"], strict=True):
                vars(callback).update(values)
                if isinstance(callback, _Plateau):  # Earlier states have the rate that comes next in their last row.
                    rate = counters.get("learning_rate", self.rows[-1]["learning_rate"])
                    self.model.optimizer.learning_rate = rate

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Make the random draws of an epoch (dropout) a function of seed and epoch alone."""
        self.started = time.perf_counter()
        for index, layer in enumerate(self.model._flatten_layers()):
            generator = getattr(getattr(layer, "_random_generator", None), "_generator", None)
            if generator is not None:
                generator.reset_from_seed((self.seed * 1_000_003 + epoch) * 10_007 + index)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note the epoch, keep it when it is the best, and save the state."""
        row = {"epoch": epoch, **{key: float(value) for key, value in (logs or {}).items() if key != "lr"}}
        row["learning_rate"] = float((logs or {}).get("lr", self._learning_rate()))
        row["seconds"] = round(time.perf_counter() - self.started, 3)
        self.rows.append(row)
        score = row.get(MONITOR, float(epoch))
        if epoch >= self.best_from_epoch and (self.best_epoch < 0 or score > self.best_score):
            self.best_epoch, self.best_score = epoch, score
            self._keep_best()
        self.stopped = bool(self.model.stop_training)
        if self.folder is not None:
            _write_history(self.folder / "history.csv", self.rows)
            self._save_state(epoch + 1)
        if self.report:
            self.report(self.name, self.rows)

    def _learning_rate(self) -> float:
        return float(keras.backend.get_value(self.model.optimizer.learning_rate))

    def _keep_best(self) -> None:
        if self.folder is not None:
            save_variables(self.folder / "best.npz", {"model": self.model.weights})
        else:
            self.best_weights = [variable.numpy() for variable in self.model.weights]

    def _save_state(self, next_epoch: int) -> None:
        counters = [
            {key: float(value) for key, value in vars(callback).items() if key in ("wait", "best", "cooldown_counter")}
            for callback in self.stateful
        ]
        save_variables(
            self.folder / "state.npz",
            self._groups(),
            rows=self.rows,
            best_epoch=self.best_epoch,
            best_score=self.best_score,
            next_epoch=next_epoch,
            stopped=self.stopped,
            callbacks=counters,
            learning_rate=self._learning_rate(),
        )

    def load_best(self) -> None:
        """Give the model the weights of the best epoch; a regularizer's ramp goes on behind the last one."""
        if self.best_epoch < 0:
            return
        ramps = getattr(self.model, "controller", self) is None  # a masked model without masks
        step = self.model.mask_step.numpy() if ramps else 0
        if self.folder is not None:
            load_variables(self.folder / "best.npz", {"model": self.model.weights})
        else:
            for variable, value in zip(self.model.weights, self.best_weights, strict=True):
                variable.assign(value)
        if ramps:
            self.model.mask_step.assign(step)


def fit_stage(
    model: Any,
    batches: Callable[[int], Any] | Any,
    *,
    epochs: int,
    loss: Any,
    optimizer: Any,
    validation: Any = None,
    metrics: Sequence[Any] = (),
    steps_per_epoch: int | None = None,
    name: str = "train",
    folder: str | Path | None = None,
    seed: int = 0,
    best_from_epoch: int = 0,
    early_stop_epochs: int | None = None,
    plateau_epochs: int | None = None,
    callbacks: Sequence[Any] = (),
    tensorboard: bool = False,
    report: Callable[[str, list[dict[str, float]]], None] | None = None,
    jit_compile: bool | None = None,
) -> StageResult:
    """Compile and fit `model` in place, and leave it with the weights of its best validation epoch.

    Best is the highest `val_mean_iou` (a metric named `mean_iou` and `validation` are needed for
    it), else the last epoch. With a `folder` the state is saved after every epoch: the same call
    after a kill goes on there and ends with the same weights as one that was never disturbed.

    Args:
        model: a functional tf_keras model.
        batches: a dataset of one epoch, or a callable `first_epoch -> dataset` that yields
            `steps_per_epoch` batches for each epoch from `first_epoch` on (needed for an exact resume).
        epochs: epochs of this stage.
        best_from_epoch: first epoch (from 0) that may be the best; a pruning ramp sets it to its end.
        early_stop_epochs: stop after so many epochs without a better validation score, counted from `best_from_epoch`:
            masks that close make the score worse, and have to close.
        plateau_epochs: after so many epochs without a better score, counted alike, the learning rate is divided by 10.
        report: called as `report(name, rows)` after each epoch, with all rows of the history so far.

    Raises:
        InputError: for settings that cannot be met.
    """
    if epochs < 1:
        raise InputError(f"stage '{name}': epochs is {epochs}; give at least 1")
    if callable(batches) and steps_per_epoch is None:
        raise InputError(f"stage '{name}': batches is a callable, so steps_per_epoch must be given")
    folder = Path(folder) if folder is not None else None
    model.compile(optimizer=optimizer, loss=loss, metrics=list(metrics), jit_compile=jit_compile)
    optimizer.build(model.trainable_variables)
    stateful = _plateau_callbacks(early_stop_epochs, plateau_epochs, best_from_epoch)
    keeper = _Keeper(
        name=name, folder=folder, seed=seed, best_from_epoch=best_from_epoch, stateful=stateful, report=report
    )
    keeper.set_model(model)
    keeper.restore()
    if keeper.first_epoch < epochs and not keeper.stopped:
        boards = [keras.callbacks.TensorBoard(str(folder / "tensorboard"))] if tensorboard and folder else []
        model.fit(
            batches(keeper.first_epoch) if callable(batches) else batches,
            initial_epoch=keeper.first_epoch,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            validation_data=validation,
            callbacks=[*callbacks, *boards, *stateful, keeper],
            verbose=0,
        )
    keeper.load_best()
    return StageResult(
        name=name,
        epochs=len(keeper.rows),
        best_epoch=keeper.best_epoch,
        best_val_mean_iou=keeper.rows[keeper.best_epoch].get(MONITOR) if keeper.best_epoch >= 0 else None,
        seconds=round(sum(row["seconds"] for row in keeper.rows), 3),
        history=tuple(keeper.rows),
    )


def _plateau_callbacks(early_stop_epochs: int | None, plateau_epochs: int | None, from_epoch: int) -> list[Any]:
    chosen = []
    if plateau_epochs:
        lower = {"patience": plateau_epochs, "factor": 0.1, "from_epoch": from_epoch}
        chosen.append(_Plateau(monitor=MONITOR, mode="max", **lower))
    if early_stop_epochs:
        stop = {"patience": early_stop_epochs, "start_from_epoch": from_epoch}
        chosen.append(keras.callbacks.EarlyStopping(monitor=MONITOR, mode="max", **stop))
    return chosen


def _write_history(path: Path, rows: list[dict[str, float]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())
