"""Your own Keras model, pruned in `model.fit`: a script to read and to copy.

    python scripts/train_with_fit.py                                  # on drawn pictures of steel
    python scripts/train_with_fit.py --data DIR --epochs 25 --sparsity 0.9

Trains a small net, prunes it while it trains on, and writes pruned.keras and pruned_int8.tflite.
"""

import argparse
from pathlib import Path

from tfprune.data import generate_steel, load_arrays, open_set
from tfprune.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras  # tf_keras, whatever else is installed
from tfprune.objectives.losses import build_loss
from tfprune.objectives.metrics import MeanIoU
from tfprune.pruning.controller import MaskController
from tfprune.pruning.norms import reestimate_batch_norm
from tfprune.pruning.schedules import build_schedule

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, help="folder with images/ and masks/; default: drawn pictures")
parser.add_argument("--out", type=Path, default=Path("runs/train_with_fit"), help="folder for what is written")
parser.add_argument("--size", type=int, default=96, help="side of the pictures that the net sees, pixels")
parser.add_argument("--pictures", type=int, default=200, help="drawn training pictures")
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument(
    "--pruning-epochs", type=int, default=8, help="of which the masks change in the first three quarters"
)
parser.add_argument("--sparsity", type=float, default=0.8, help="fraction of zeros in the masked layers")


def build_model(size: int, classes: int) -> keras.Model:
    """Build your net here: raw pixels 0..255 in, logits out."""
    layers = keras.layers

    def block(x, width):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    image = layers.Input((size, size, 3))
    x = layers.Rescaling(1 / 255)(image)
    skips = []
    for width in (16, 32):
        x = block(block(x, width), width)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = block(x, 64)
    for width, skip in zip((32, 16), reversed(skips), strict=True):
        x = block(layers.Concatenate()([layers.UpSampling2D()(x), skip]), width)
    return keras.Model(image, layers.Conv2D(classes, 1, name="logits")(x))


def main(options: argparse.Namespace) -> None:
    keras.utils.set_random_seed(0)
    options.out.mkdir(parents=True, exist_ok=True)
    data = options.data
    if data is None:
        counts = {"train": options.pictures, "val": 20, "test": 40}
        data = generate_steel(options.out / "data", classes=2, counts=counts, size=(options.size, options.size))
    found = open_set(data)
    names = found.classes.names
    arrays = {
        split: load_arrays(pairs, found.classes, size=(options.size, options.size), channels=3)
        for split, pairs in found.splits.items()
    }
    train, test = arrays["train"], evaluation_batches(arrays["test"], batch_size=8)
    loss = build_loss([{"cross_entropy": {}}, {"dice": {}}])

    model = build_model(options.size, len(names))
    model.compile("adam", loss, metrics=[MeanIoU(len(names))])
    model.fit(training_batches(train, batch_size=8, epochs=options.epochs, seed=0), verbose=2)
    print("dense: ", model.evaluate(test, verbose=0, return_dict=True))

    # The controller makes a model of its own that masks itself in fit, evaluate and predict: no callback needed.
    steps = options.pruning_epochs * steps_per_epoch(len(train), batch_size=8)
    ramp = max(1, 3 * steps // 4)  # the rest of the steps trains at fixed masks
    schedule = build_schedule("polynomial", options.sparsity, begin_step=0, end_step=ramp, prunes=min(16, ramp))
    controller = MaskController(model, schedule)
    controller.model.compile("adam", loss, metrics=[MeanIoU(len(names))])
    controller.model.fit(training_batches(train, batch_size=8, epochs=options.pruning_epochs, seed=1), verbose=2)
    reestimate_batch_norm(controller.model, evaluation_batches(train, batch_size=8))  # they lag behind the masks
    print("pruned:", controller.model.evaluate(test, verbose=0, return_dict=True))

    pruned = controller.strip()  # a plain model again, with the zeros in its weights
    pruned.save(options.out / "pruned.keras")
    written = export_tflite(
        pruned,
        options.out / "pruned_int8.tflite",
        scheme="int8",
        class_names=names,
        calibration=train.images[:100],
    )
    print(f"{controller.total_sparsity():.1%} zeros in the masked layers; wrote {written}")


if __name__ == "__main__":
    main(parser.parse_args())
