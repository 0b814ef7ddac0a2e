"""Pictures and masks in every stored form that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfprune.data.faults import FileFault
from tfprune.data.images import open_picture, read_image, read_mask
from tfprune.data.masks import ClassTable, build_class_table
from tfprune.errors import InputError
from tfprune.records import IGNORE_ID

TWO = ClassTable(("steel", "rust"))
THREE = ClassTable(("steel", "rust", "paint"))
GREY16 = np.array([[0, 255, 256, 65535], [4660, 32768, 1, 257]], np.uint16)
RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 7


def save(array: np.ndarray, path: Path, mode: str | None = None) -> Path:
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_keeps_the_high_byte(tmp_path, suffix):
    path = save(GREY16, tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_image(path, 1)[..., 0], GREY16 >> 8)
    np.testing.assert_array_equal(read_image(path, 3), np.repeat((GREY16 >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp"])
def test_rgb_and_its_transparent_form_give_the_same_pixels(tmp_path, suffix):
    path = save(RGB, tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_image(path, 3), RGB)
    np.testing.assert_array_equal(read_image(save(RGB, tmp_path / f"b{suffix}", "RGBA"), 3), RGB)
    assert read_image(path, 1).shape == (2, 3, 1)


def test_jpeg_and_one_bit_pictures(tmp_path):
    flat = np.full((16, 16, 3), 90, np.uint8)
    assert np.abs(read_image(save(flat, tmp_path / "a.jpg"), 3).astype(int) - 90).max() <= 2
    bits = np.array([[True, False]])
    assert read_image(save(bits, tmp_path / "b.png"), 1).ravel().tolist() == [255, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_index_masks(tmp_path, dtype):
    values = np.array([[0, 1, 2]], dtype)
    np.testing.assert_array_equal(read_mask(save(values, tmp_path / "a.png"), THREE), values)


def test_palette_masks_by_index_and_by_colour(tmp_path):
    picture = Image.new("P", (3, 1))
    picture.putdata([0, 1, 2])
    picture.putpalette([10, 10, 10, 200, 0, 0, 0, 0, 200])
    picture.save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png", THREE).tolist() == [[0, 1, 2]]
    table = build_class_table(THREE.names, colours=[[0, 0, 200], [10, 10, 10], [200, 0, 0]])
    assert read_mask(tmp_path / "a.png", table).tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("values", [[0, 255], [0, 0], [255, 255], [0, 1]])
def test_two_classes_as_0_255_or_0_1(tmp_path, values):
    path = save(np.array([values], np.uint8), tmp_path / "a.png")
    assert read_mask(path, TWO).tolist() == [[int(value > 0) for value in values]]


def test_255_is_the_ignored_label_when_the_table_says_so(tmp_path):
    path = save(np.array([[0, 255]], np.uint8), tmp_path / "a.png")
    assert read_mask(path, ClassTable(TWO.names, ignore_index=255)).tolist() == [[0, IGNORE_ID]]


def test_an_ignored_label_among_the_classes_moves_the_later_ones_down(tmp_path):
    table = build_class_table(["void", "steel", "rust"], ignore_index=0)
    assert table.names == ("steel", "rust")
    path = save(np.array([[0, 1, 2]], np.uint8), tmp_path / "a.png")
    assert read_mask(path, table).tolist() == [[IGNORE_ID, 0, 1]]


def test_rgb_masks_by_the_colour_table(tmp_path):
    table = build_class_table(
        ["steel", "rust", "void"], ignore_index=2, colours=[[0, 0, 0], [255, 0, 0], [255, 255, 255]]
    )
    pixels = np.array([[[255, 0, 0], [255, 255, 255], [0, 0, 0]]], np.uint8)
    path = save(pixels, tmp_path / "a.png")
    assert read_mask(path, table).tolist() == [[1, IGNORE_ID, 0]]
    with pytest.raises(FileFault, match=r"no colour table; give `colours` in dataset\.json"):
        read_mask(path, TWO)
    pixels[0, 0] = (1, 2, 3)
    with pytest.raises(FileFault, match=r"\[\[1, 2, 3\]\]"):
        read_mask(save(pixels, tmp_path / "b.png"), table)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([[0, 1, 7]], r"no class: 7 \(1 pixels\). The classes are 0 steel, 1 rust"),
        ([[0, 1, 255]], "ignore_index: 255 in dataset.json"),
    ],
)
def test_ids_in_no_class_are_named_with_the_file(tmp_path, values, text):
    path = save(np.array(values, np.uint8), tmp_path / "strange.png")
    with pytest.raises(InputError, match=r"strange\.png: .*" + text):
        read_mask(path, TWO)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.png", b"", "empty_file"),
        ("a.png", b"hello, this is text", "not_an_image"),
        ("none.png", None, "missing_file"),
    ],
)
def test_files_that_are_no_pictures(tmp_path, name, content, kind):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFault) as caught:
        read_image(tmp_path / name, 3)
    assert caught.value.kind == kind
    assert name in str(caught.value)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_a_picture_cut_short_is_unreadable(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = save(noise, tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FileFault) as caught:
        read_image(path, 3)
    assert caught.value.kind in ("unreadable", "not_an_image")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_read_as_the_rgb_it_was_made_of(tmp_path, suffix):
    flat = np.zeros((16, 16, 3), np.uint8) + np.array([200, 30, 90], np.uint8)
    path = save(flat, tmp_path / f"a{suffix}", "CMYK")
    assert open_picture(path).mode == "CMYK"
    assert np.abs(read_image(path, 3).astype(int) - flat).max() <= 2
    assert np.abs(read_image(path, 1)[..., 0].astype(int) - np.asarray(Image.fromarray(flat).convert("L"))).max() <= 2
    with pytest.raises(FileFault, match="no colour table"):
        read_mask(path, TWO)


def test_a_picture_of_floats_says_how_to_convert(tmp_path):
    with pytest.raises(FileFault, match=r"colour mode F.*convert\('RGB'\)"):
        read_image(save(np.ones((2, 2), np.float32), tmp_path / "a.tif"), 3)


@pytest.mark.parametrize(
    ("names", "options", "text"),
    [
        (["rust"], {}, "name the background too"),
        (["a", "a"], {}, "given more than once: a"),
        (["a", 3], {}, "non-empty texts"),
        (["a", "two\nlines"], {}, "of one line"),
        (["a", " "], {}, "non-empty texts"),
        (["a", "b"], {"ignore_index": -1}, "ignore_index must be"),
        (["a", "b"], {"colours": [[0, 0, 0]]}, "1 colours for 2 class names"),
        (["a", "b"], {"colours": [[0, 0, 0], [0, 0, 0]]}, "same colour"),
        (["a", "b"], {"colours": [[0, 0, 0], "red"]}, "three numbers"),
    ],
)
def test_class_tables_that_cannot_be_used(names, options, text):
    with pytest.raises(InputError, match=text):
        build_class_table(names, **options)
