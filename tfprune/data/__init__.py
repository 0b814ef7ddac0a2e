"""Data: folders of pictures and masks, splits, augmentation, tf.data pipelines and generated sets.

`open_set` pairs files and decides the splits, `load_arrays` reads them, `tfprune.data.augmentation` and
`tfprune.data.pipeline` (TensorFlow) make batches of them, `check_folder` tells what is wrong with a folder.
"""

from __future__ import annotations

from tfprune.data.arrays import SegmentationArrays, describe_set, load_arrays
from tfprune.data.branches import generate_branches
from tfprune.data.check import CheckReport, check_folder
from tfprune.data.faults import FileFault, Finding
from tfprune.data.folders import Pair
from tfprune.data.images import read_image, read_mask
from tfprune.data.masks import ClassTable
from tfprune.data.sets import SegmentationSet, open_set
from tfprune.data.steel import generate_steel
from tfprune.data.strips import generate_strips
from tfprune.data.wells import generate_wells

GENERATORS = {
    "steel": generate_steel,
    "branches": generate_branches,
    "strips": generate_strips,
    "wells": generate_wells,
}
"""Sets that are drawn: name -> function that writes one into a folder."""

__all__ = [
    "GENERATORS",
    "CheckReport",
    "ClassTable",
    "FileFault",
    "Finding",
    "Pair",
    "SegmentationArrays",
    "SegmentationSet",
    "check_folder",
    "describe_set",
    "load_arrays",
    "open_set",
    "read_image",
    "read_mask",
]
