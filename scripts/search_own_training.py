"""A search over your own training function: a script to read and to copy.

    python scripts/search_own_training.py                     # on drawn pictures of steel
    python scripts/search_own_training.py --trials 20 --epochs 10

Tries widths, sparsities and learning rates of a small net; a net with too many parameters is not trained. It
writes a page with what no other trial beats. Stop it when you like: the same command goes on.
"""

import argparse
from pathlib import Path

from rich.console import Console

from tfprune.budget import write_amount
from tfprune.data import generate_steel, load_arrays, open_set
from tfprune.data.pipeline import steps_per_epoch, training_batches
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras  # tf_keras, whatever else is installed
from tfprune.objectives.losses import build_loss
from tfprune.objectives.scores import score_confusions
from tfprune.pruning.controller import MaskController
from tfprune.pruning.schedules import build_schedule
from tfprune.report.search import summarise_search
from tfprune.search.functions import search_function
from tfprune.search.trials import RejectedTrial
from tfprune.verification.footprint import measure_footprint
from tfprune.verification.quality import measure_quality
from tfprune.verification.runtimes import open_runtime

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("runs/search_own_training"), help="folder for what is written")
parser.add_argument("--size", type=int, default=64, help="side of the drawn pictures, pixels")
parser.add_argument("--pictures", type=int, default=200, help="drawn training pictures")
parser.add_argument("--epochs", type=int, default=4, help="of each trial")
parser.add_argument("--trials", type=int, default=8)

MOST_PARAMETERS = 20_000


def build_model(size: int, classes: int, width: int) -> keras.Model:
    """Build your net here: raw pixels 0..255 in, logits out."""
    layers = keras.layers
    image = layers.Input((size, size, 3))
    x = layers.Rescaling(1 / 255)(image)
    for factor in (1, 2, 2):
        x = layers.Conv2D(factor * width, 3, padding="same", activation="relu")(x)
    return keras.Model(image, layers.Conv2D(classes, 1, name="logits")(x))


def main(options: argparse.Namespace) -> None:
    counts = {"train": options.pictures, "val": 20, "test": 20}
    found = open_set(generate_steel(options.out / "data", classes=2, counts=counts, size=(options.size,) * 2))
    names = found.classes.names
    train, val = (
        load_arrays(found.splits[split], found.classes, size=(options.size,) * 2, channels=3)
        for split in ("train", "val")
    )

    def run(values: dict, folder: Path) -> dict[str, float]:
        """Train and export one net, and return its figures: the quality and the costs that the search names."""
        keras.utils.set_random_seed(0)
        model = build_model(options.size, len(names), values["width"])
        if model.count_params() > MOST_PARAMETERS:
            said = f"{write_amount('parameters', model.count_params())} parameters"
            raise RejectedTrial(said, {"parameters": model.count_params()})
        steps = options.epochs * steps_per_epoch(len(train), batch_size=8)
        ramp = max(1, steps // 2)
        schedule = build_schedule("polynomial", values["sparsity"], begin_step=0, end_step=ramp, prunes=min(8, ramp))
        controller = MaskController(model, schedule)
        controller.model.compile(keras.optimizers.Adam(values["learning_rate"]), build_loss("cross_entropy"))
        controller.model.fit(training_batches(train, batch_size=8, epochs=options.epochs, seed=0), verbose=0)
        path = folder / "pruned_int8.tflite"
        export_tflite(controller.strip(), path, scheme="int8", class_names=names, calibration=train.images[:100])
        judged = measure_quality(open_runtime(path).classes_of, val.images, val.masks, classes=len(names))
        cost = measure_footprint(path)
        figures = {name: getattr(cost, name) for name in ("file_bytes", "gzip_bytes", "parameters")}
        return {"mean_iou": score_confusions(judged.confusions, names)["mean_iou"], **figures}

    settings = {
        "oracle": "random",
        "trials": options.trials,
        "quality": "mean_iou",
        "costs": {"file_bytes": 0.0, "gzip_bytes": 0.0},
        "constraints": f"parameters<={MOST_PARAMETERS}",
        "ranges": {
            "width": {"choice": [8, 16, 32]},
            "sparsity": {"low": 0.5, "high": 0.9},
            "learning_rate": {"low": 0.0003, "high": 0.01, "log": True},
        },
    }
    search_function(run, settings, options.out)
    Console().print(summarise_search(options.out))


if __name__ == "__main__":
    main(parser.parse_args())
