"""Redundancy trained away, then pruned, then on the device: a script to read and to copy.

    python scripts/train_with_regularizer.py                          # on drawn pictures of steel
    python scripts/train_with_regularizer.py --data DIR --strength 5 --sparse-gradients 0.5

Trains with a penalty on filters that resemble each other (arXiv 2210.07451), prunes, exports int8, and
judges the exported file on the test pictures.
"""

import argparse
from pathlib import Path

from tfprune.architectures import build_model
from tfprune.data import generate_steel, load_arrays, open_set
from tfprune.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras  # tf_keras, whatever else is installed
from tfprune.objectives.losses import build_loss
from tfprune.objectives.metrics import MeanIoU
from tfprune.pruning.controller import MaskController
from tfprune.pruning.norms import reestimate_batch_norm
from tfprune.pruning.schedules import build_schedule
from tfprune.regularization.attaching import PenaltyLog, regularize_model
from tfprune.verification.proof import prove_folder

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, help="folder with images/ and masks/; default: drawn pictures")
parser.add_argument("--out", type=Path, default=Path("runs/train_with_regularizer"), help="folder for what is written")
parser.add_argument("--size", type=int, default=96, help="side of the pictures that the net sees, pixels")
parser.add_argument("--pictures", type=int, default=200, help="drawn training pictures")
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument(
    "--pruning-epochs", type=int, default=8, help="of which the masks change in the first three quarters"
)
parser.add_argument("--sparsity", type=float, default=0.8, help="fraction of zeros in the masked layers")
parser.add_argument("--strength", type=float, default=1.0, help="of the penalty (lambda)")
parser.add_argument("--sparse-gradients", type=float, default=0.0, help="fraction of each gradient to leave out")


def main(options: argparse.Namespace) -> None:
    keras.utils.set_random_seed(0)
    options.out.mkdir(parents=True, exist_ok=True)
    data = options.data
    if data is None:
        counts = {"train": options.pictures, "val": 20, "test": 40}
        data = generate_steel(options.out / "data", classes=2, counts=counts, size=(options.size, options.size))
    found = open_set(data)
    names = found.classes.names
    train = load_arrays(found.splits["train"], found.classes, size=(options.size, options.size), channels=3)
    loss = build_loss([{"cross_entropy": {}}, {"dice": {}}])

    net = build_model("plain_unet", input_size=(options.size, options.size), outputs=len(names), width=8, seed=0)
    readings = {"threshold": {"sparsity": options.sparse_gradients}} if options.sparse_gradients else None
    model = regularize_model(net, {"orthogonality": {"strength": options.strength}}, readings)
    model.compile("adam", loss, metrics=[MeanIoU(len(names))])
    batches = training_batches(train, batch_size=8, epochs=options.epochs, seed=0)
    model.fit(batches, callbacks=[PenaltyLog()], verbose=2)  # the log has R, which falls as filters part

    # The penalty stays on while the masks grow; masked rows do not count in it.
    steps = options.pruning_epochs * steps_per_epoch(len(train), batch_size=8)
    ramp = max(1, 3 * steps // 4)
    schedule = build_schedule("polynomial", options.sparsity, begin_step=0, end_step=ramp, prunes=min(16, ramp))
    controller = MaskController(model, schedule)
    controller.model.compile("adam", loss, metrics=[MeanIoU(len(names))])
    batches = training_batches(train, batch_size=8, epochs=options.pruning_epochs, seed=1)
    controller.model.fit(batches, callbacks=[PenaltyLog()], verbose=2)
    reestimate_batch_norm(controller.model, evaluation_batches(train, batch_size=8))  # they lag behind the masks

    pruned = controller.strip()  # neither masks nor penalties are left in it
    pruned.save(options.out / "pruned.keras")
    file = options.out / "pruned_int8.tflite"
    export_tflite(pruned, file, scheme="int8", class_names=names, calibration=train.images[:100])
    (row,) = prove_folder([file], data)["rows"]
    print(f"{file}: test mean IoU {row['scores']['mean_iou']:.3f}, {row['footprint']['file_bytes']:,} bytes")


if __name__ == "__main__":
    main(parser.parse_args())
