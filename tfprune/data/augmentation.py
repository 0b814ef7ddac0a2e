"""Augmentation by albumentations, named in a recipe, as a pure function of (image, mask, seed)."""

from __future__ import annotations

import copy
import inspect
import os
import random
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.errors import InputError, unknown_name
from tfprune.records import IGNORE_ID

if TYPE_CHECKING:
    import albumentations

_DRAWS = 64
"""Times that a transform is tried whose size is random."""
_NOT_FOR_RECIPES = ("BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D", "Lambda")


def _import_albumentations() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for updates at import
    import albumentations

    return albumentations


def list_augmentations() -> tuple[str, ...]:
    """Return the names a recipe may use: albumentations' transforms that need no more than a picture and its mask."""
    library = _import_albumentations()
    kinds = (library.DualTransform, library.ImageOnlyTransform)
    names = []
    for name, value in vars(library).items():
        if not inspect.isclass(value) or not issubclass(value, kinds) or issubclass(value, library.Transform3D):
            continue
        if "BBox" not in name and "metadata_key" not in inspect.signature(value.__init__).parameters:
            names.append(name)
    return tuple(sorted(set(names) - set(_NOT_FOR_RECIPES)))


class Augmentation:
    """A pipeline of transforms that ends in a random crop to `size` (height, width).

    Calling it is a pure function of its arguments and safe in any number of threads: each thread has
    its own copy, and all random numbers come from the call's seed.
    """

    def __init__(self, transforms: Sequence[albumentations.BasicTransform], *, size: tuple[int, int]) -> None:
        self.size = size
        self._prototype = _import_albumentations().Compose(list(transforms))
        self._local = threading.local()

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return image uint8 (h, w, C) and mask uint8 (h, w), augmented with `seed` and cropped to `size`."""
        pipeline = getattr(self._local, "pipeline", None)
        if pipeline is None:
            pipeline = self._local.pipeline = copy.deepcopy(self._prototype)
        generator = np.random.default_rng(seed)
        # One generator for all: set_random_seed would give each transform the same draws, and two flips
        # of p=0.5 would always come together.
        pipeline.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        result = pipeline(image=image, mask=mask)
        return result["image"], result["mask"]


def build_augmentation(
    spec: Sequence[str | Mapping[str, Mapping[str, Any] | None]],
    *,
    size: tuple[int, int],
    channels: int = 3,
    pictures: tuple[int, int] | None = None,
    where: str = "augmentation",
) -> Augmentation:
    """Return the augmentation for a list of names, or `{name: {parameter: value}}`, of albumentations.

    Pixels that a transform makes up (corners after a rotation, padding) become `IGNORE_ID` in the mask, so
    that nobody trains on them; a `fill_mask` in the spec, or a reflecting `border_mode`, changes that.
    Pictures smaller than `size` are padded in the same way, larger ones cropped at random.

    Args:
        spec: the transforms, in order.
        size: height and width of what comes out.
        channels: of the pictures.
        pictures: height and width of what is augmented, which every transform is tried on here, as the ones in
            front of it leave it; default: `size`, and at least 256.
        where: what messages begin with.

    Raises:
        InputError: an unknown name or parameter, a value out of range, a transform that cannot be applied to
            such pictures, or that does not give back uint8 pixels and class ids.

    >>> augment = build_augmentation(["HorizontalFlip", {"Rotate": {"limit": 20}}], size=(32, 48))
    >>> image, mask = augment(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8), 7)
    >>> image.shape, mask.shape
    ((32, 48, 3), (32, 48))
    """
    if isinstance(spec, str | Mapping) or not isinstance(spec, Sequence):
        raise InputError(f"{where}: must be a list such as [HorizontalFlip, {{Rotate: {{limit: 20}}}}], not {spec!r}")
    library = _import_albumentations()
    transforms, tried = [], {pictures or (max(256, size[0]), max(256, size[1]))}
    for number, entry in enumerate(spec):
        place = f"{where}[{number}]"
        name, parameters = _name_and_parameters(entry, place)
        place = f"{place} {name}"
        transform = _build_transform(library, name, parameters, place)
        made = {size for given in tried for size in _try_transform(library, transform, place, shape=(*given, channels))}
        tried = _extremes(made if transform.p == 1 else tried | made)
        transforms.append(transform)
    transforms.append(library.RandomCrop(*size, pad_if_needed=True, fill_mask=IGNORE_ID))
    return Augmentation(transforms, size=size)


def _name_and_parameters(entry: Any, place: str) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        name, parameters = next(iter(entry.items()))
        if parameters is None:
            return str(name), {}
        if isinstance(parameters, Mapping):
            return str(name), {str(key): value for key, value in parameters.items()}
    raise InputError(f"{place}: must be a name or one {{name: {{parameter: value}}}}, not {entry!r}")


def _build_transform(library: Any, name: str, parameters: dict[str, Any], place: str) -> Any:
    accepted_names = list_augmentations()
    if name not in accepted_names:
        raise unknown_name("augmentation", name, accepted_names, place.split(" ")[0])
    kind = getattr(library, name)
    accepted = inspect.signature(kind.__init__).parameters
    for key in parameters:
        if key not in accepted or key == "self":
            raise unknown_name("parameter", key, [item for item in accepted if item != "self"], place)
    made_up = accepted.get("fill_mask")
    if made_up is not None and made_up.default is not None and name != "MaskDropout":
        parameters.setdefault("fill_mask", IGNORE_ID)  # where the default is None, the mask stays as it is
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to use other transforms
            return kind(**parameters)
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: {_validation_text(error)}") from error


def _validation_text(error: Exception) -> str:
    """Return a validation error of albumentations on one line, without its links."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line.split(" [type=")[0] for line in lines if line and not line.startswith("For further information")]
    return "; ".join(kept[1:] if len(kept) > 1 and "validation error" in kept[0] else kept)


def _extremes(sizes: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return the lowest, highest, narrowest and widest of sizes."""
    return {choose(sizes, key=lambda size: size[axis]) for choose in (min, max) for axis in (0, 1)}


def _try_transform(library: Any, transform: Any, place: str, *, shape: tuple[int, int, int]) -> set[tuple[int, int]]:
    """Apply the transform for certain, before anything is trained, and return the heights and widths it leaves.

    One that leaves another size than it found is drawn often, for the sizes that it may leave.
    """
    certain = copy.deepcopy(transform)
    certain.p = 1.0
    pipeline = library.Compose([certain])
    sizes = {_try_draw(pipeline, transform, place, shape=shape, seed=seed) for seed in (0, 1)}
    if sizes != {shape[:2]}:
        sizes |= {_try_draw(pipeline, transform, place, shape=shape, seed=seed) for seed in range(2, _DRAWS)}
    return sizes


def _try_draw(pipeline: Any, transform: Any, place: str, *, shape: tuple[int, int, int], seed: int) -> tuple[int, int]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    mask = np.zeros(shape[:2], np.uint8)
    mask[shape[0] // 6 : shape[0] // 2, shape[1] // 6 : shape[1] * 2 // 3] = 100
    try:
        pipeline.set_random_state(rng, random.Random(seed))
        result = pipeline(image=image, mask=mask)
    except Exception as error:  # each transform has its own ways to refuse a picture
        raise InputError(
            f"{place}: cannot be applied to a picture of shape {shape} and its mask: {_validation_text(error)}"
        ) from error
    made, ids = result["image"], set(np.unique(result["mask"]).tolist())
    if made.dtype != np.uint8 or made.ndim != 3 or made.shape[2] != shape[2]:
        raise InputError(
            f"{place}: gives {made.dtype} pixels of shape {made.shape}; needed are uint8 with {shape[2]} "
            "channel(s), as the model holds its own preprocessing"
        )
    allowed = {0, 100, IGNORE_ID, transform.fill_mask if hasattr(transform, "fill_mask") else 0}
    if not ids <= allowed:
        raise InputError(f"{place}: mixes class ids in the mask; leave mask_interpolation at 0 (nearest)")
    return made.shape[:2]
