from __future__ import annotations

import zipfile

import pytest

from tests.export.nets import exported, without_card
from tfprune.errors import InputError
from tfprune.export.card import CARD_NAME, read_card, write_card

CARD = {
    "format": 1,
    "classes": ["steel", "Rost-Ä"],
    "head": "logits",
    "scheme": "int8",
    "outputs": 1,
    "input_size": [32, 32],
    "channels": 3,
}


def some_file(folder, name="model.tflite"):
    path = folder / name
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(range(200)))
    return path


def test_card_comes_back_and_labels_are_lines(tmp_path):
    path = some_file(tmp_path)
    before = path.read_bytes()
    write_card(path, CARD)
    assert read_card(path) == CARD
    assert path.read_bytes().startswith(before)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode() == "steel\nRost-Ä\n"


def test_equal_files_stay_equal(tmp_path):
    first, second = some_file(tmp_path, "a.tflite"), some_file(tmp_path, "b.tflite")
    write_card(first, CARD)
    write_card(second, CARD)
    assert first.read_bytes() == second.read_bytes()


def test_no_card_is_none(tmp_path):
    assert read_card(some_file(tmp_path)) is None
    other = some_file(tmp_path, "android.tflite")
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("labels.txt", "a\n")
    assert read_card(other) is None


def test_wrong_cards_are_refused(tmp_path):
    path = some_file(tmp_path)
    with pytest.raises(InputError, match="lacks head, outputs"):
        write_card(path, {key: value for key, value in CARD.items() if key not in ("head", "outputs")})
    write_card(path, CARD)
    with pytest.raises(InputError, match="already"):
        write_card(path, CARD)
    later = some_file(tmp_path, "later.tflite")
    with zipfile.ZipFile(later, "a") as archive:
        archive.writestr(
            CARD_NAME,
            '{"format": 2, "classes": [], "head": "", "scheme": "", "outputs": 1, "input_size": [1, 1], "channels": 1}',
        )
    with pytest.raises(InputError, match="format 2"):
        read_card(later)
    broken = some_file(tmp_path, "broken.tflite")
    with zipfile.ZipFile(broken, "a") as archive:
        archive.writestr(CARD_NAME, "{")
    with pytest.raises(InputError, match="cannot be read"):
        read_card(broken)
    with pytest.raises(InputError, match="no such file"):
        read_card(tmp_path / "absent.tflite")


def test_exported_file_says_what_it_is(tmp_path):
    path = exported("plain", 3, "int8", "probabilities")
    assert read_card(path) == {
        "format": 1,
        "classes": ["steel", "rust", "scratch"],
        "head": "probabilities",
        "scheme": "int8",
        "outputs": 3,
        "input_size": [32, 32],
        "channels": 3,
        "calibration": {"pictures": 16, "clip": 0.0},
    }
    assert read_card(without_card(path, tmp_path / "bare.tflite")) is None
