"""Your own training loop, with our masks in it: a script to read and to copy.

    python scripts/train_with_own_loop.py                             # on drawn pictures of steel
    python scripts/train_with_own_loop.py --data DIR --criterion magnitude

Three lines of an ordinary loop change; they are marked. Trains, prunes and writes pruned.keras.
"""

import argparse
from pathlib import Path

from tfprune.architectures import build_model
from tfprune.data import generate_steel, load_arrays, open_set
from tfprune.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from tfprune.keras import keras, tf  # tf_keras, whatever else is installed
from tfprune.objectives.losses import build_loss
from tfprune.objectives.metrics import MeanIoU
from tfprune.pruning.controller import MaskController
from tfprune.pruning.norms import reestimate_batch_norm
from tfprune.pruning.schedules import build_schedule

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, help="folder with images/ and masks/; default: drawn pictures")
parser.add_argument("--out", type=Path, default=Path("runs/train_with_own_loop"), help="folder for what is written")
parser.add_argument("--size", type=int, default=96, help="side of the pictures that the net sees, pixels")
parser.add_argument("--pictures", type=int, default=200, help="drawn training pictures")
parser.add_argument("--epochs", type=int, default=16, help="the masks change in the second quarter of them")
parser.add_argument("--sparsity", type=float, default=0.8, help="fraction of zeros in the masked layers")
parser.add_argument("--criterion", default="taylor", help="see `tfprune list criteria`")


def main(options: argparse.Namespace) -> None:
    keras.utils.set_random_seed(0)
    options.out.mkdir(parents=True, exist_ok=True)
    data = options.data
    if data is None:
        counts = {"train": options.pictures, "val": 20, "test": 40}
        data = generate_steel(options.out / "data", classes=2, counts=counts, size=(options.size, options.size))
    found = open_set(data)
    classes = len(found.classes.names)
    arrays = {
        split: load_arrays(pairs, found.classes, size=(options.size, options.size), channels=3)
        for split, pairs in found.splits.items()
    }
    train = arrays["train"]
    loss_function = build_loss([{"cross_entropy": {}}, {"dice": {}}])
    optimizer = keras.optimizers.Adam(1e-3)

    net = build_model("plain_unet", input_size=(options.size, options.size), outputs=classes, width=8, depth=3, seed=0)
    steps = options.epochs * steps_per_epoch(len(train), batch_size=8)
    begin, end = steps // 4, max(1, steps // 2)
    schedule = build_schedule(
        "polynomial", options.sparsity, begin_step=begin, end_step=end, prunes=min(16, end - begin)
    )
    controller = MaskController(net, schedule, criterion=options.criterion)
    model = controller.model

    @tf.function
    def train_step(images, truth, step):
        with tf.GradientTape() as tape:
            tape.watch(controller.taps)  # 1: what the criterion wants to know about the gradients
            loss = loss_function(truth, model(images, training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, [*variables, *controller.taps])
        controller.gather(gradients[len(variables) :], step=step)  # 2: give it to the controller
        optimizer.apply_gradients(zip(gradients, variables))  # noqa: B905
        return loss

    batches = training_batches(train, batch_size=8, epochs=options.epochs, seed=0)
    for step, (images, truth) in enumerate(batches, start=1):
        loss = train_step(images, truth, tf.constant(step))
        if controller.update(step, optimizer):  # 3: set the masks when they are due
            print(f"step {step:5} of {steps}  loss {loss:.3f}  zeros {controller.total_sparsity():.1%}")

    reestimate_batch_norm(model, evaluation_batches(train, batch_size=8))  # they lag behind the masks
    metric = MeanIoU(classes)
    for images, truth in evaluation_batches(arrays["test"], batch_size=8):
        metric.update_state(truth, model(images, training=False))
    controller.strip().save(options.out / "pruned.keras")
    print(f"test mean IoU {metric.result():.3f}, {controller.total_sparsity():.1%} zeros in the masked layers")


if __name__ == "__main__":
    main(parser.parse_args())
