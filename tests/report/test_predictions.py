"""Masks of large pictures in tiles, of videos frame by frame."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from tfprune.data.faults import FileFault
from tfprune.errors import InputError
from tfprune.report.predictions import find_images, read_frames, write_predictions
from tfprune.report.tiles import classes_in_tiles


def brightness(image):
    """A classifier that needs no neighbours: its tiles fit together without a seam."""
    return (image[..., 0] // 64).astype(np.uint8)


@pytest.mark.parametrize("shape", [(16, 16), (40, 57), (16, 100), (9, 40), (5, 5), (31, 17)])
@pytest.mark.parametrize("overlap", [0, 3, 8])
def test_tiles_cover_every_pixel_once(shape, overlap):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    found = classes_in_tiles(brightness, image, size=(16, 16), overlap=overlap)
    np.testing.assert_array_equal(found, brightness(image))


def test_a_pixel_is_decided_by_the_tile_it_lies_deepest_in():
    def depth(tile):
        rows, columns = np.minimum(np.arange(16), np.arange(16)[::-1]), np.minimum(np.arange(16), np.arange(16)[::-1])
        return np.minimum.outer(rows, columns).astype(np.uint8)

    found = classes_in_tiles(depth, np.zeros((28, 40, 1), np.uint8), size=(16, 16), overlap=4)
    assert found[2:-2, 2:-2].min() >= 2  # half of the overlap, wherever the picture goes on


def test_an_overlap_out_of_range_is_refused():
    for overlap in (-1, 9):
        with pytest.raises(InputError, match="give 0 to 8"):
            classes_in_tiles(brightness, np.zeros((20, 20, 3), np.uint8), size=(16, 16), overlap=overlap)


class Model:
    """As much of a TFLiteModel as predictions use."""

    card, outputs, channels, input_size = {"classes": ["dark", "bright"]}, 2, 3, (16, 16)

    def classes_of(self, image):
        return (image[..., 0] > 127).astype(np.uint8)


@pytest.fixture
def video(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (48, 32))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for red in (0, 250, 0):
        writer.write(np.full((32, 48, 3), (0, 0, red), np.uint8))  # BGR
    writer.release()
    return path


@pytest.mark.parametrize("overlap", [None, 4])
def test_a_video_gives_a_mask_per_frame(video, tmp_path, overlap):
    assert find_images([tmp_path]) == [video]
    written = list(write_predictions([Model()], video, tmp_path / "out", overlap=overlap))
    assert [(name, shares["bright"]) for name, shares in written] == [
        ("walk_000000", 0),
        ("walk_000001", 1),
        ("walk_000002", 0),
    ]
    with Image.open(tmp_path / "out" / "masks" / "walk_000001.png") as mask:
        assert mask.size == (48, 32) and set(np.unique(mask)) == {1}


def test_pictures_of_one_name_are_refused(tmp_path):
    for name in ("wall.png", "wall.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="several pictures are named wall"):
        find_images([tmp_path])


def test_without_opencv_or_without_frames_there_is_one_message(tmp_path, monkeypatch):
    path = tmp_path / "walk.avi"
    path.write_bytes(b"no video")
    if "cv2" in sys.modules or pytest.importorskip("cv2"):
        with pytest.raises(FileFault, match="no frame"):
            list(read_frames(path, 3))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(FileFault, match="pip install opencv-python-headless"):
        list(read_frames(path, 3))
