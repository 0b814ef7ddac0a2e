"""Answers of several files together, random walks, small regions, and the scores that stand beside them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.segmentation import random_walker

from tfprune.errors import InputError
from tfprune.objectives.scores import kaggle_dice, score_confusions
from tfprune.verification.answers import PostProcessing, answer, drop_small, probabilities_of, walk
from tfprune.verification.classes import classes_from_output
from tfprune.verification.proof import score_quality
from tfprune.verification.quality import measure_quality


def model(output, *, head="probabilities", quantization=(0.0, 0), classes=("a", "b", "c")):
    """A file that answers every picture with the same array."""
    return SimpleNamespace(
        path="net.tflite",
        head=head,
        quantization=quantization,
        input_size=output.shape[:2],
        channels=3,
        outputs=output.shape[-1],
        card={"classes": list(classes)},
        predict=lambda image: output,
        classes_of=lambda image: classes_from_output(output, head=head, quantization=quantization),
    )


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 2, (2, 6, 7, 3)).astype(np.float32)


def softmax(values):
    return np.exp(values) / np.exp(values).sum(-1, keepdims=True)


def test_files_together_answer_by_the_mean_of_their_probabilities(logits):
    first, second = model(logits[0], head="logits"), model(softmax(logits[1]))
    expected = ((softmax(logits[0]) + softmax(logits[1])) / 2).argmax(-1)
    np.testing.assert_array_equal(answer([first, second], None), expected)
    assert not np.array_equal(expected, logits[0].argmax(-1))
    np.testing.assert_array_equal(answer([first], None), logits[0].argmax(-1))


def test_probabilities_of_integers_and_of_one_output(logits):
    stored = np.round(softmax(logits[0]) * 256).astype(np.uint8)
    np.testing.assert_allclose(
        probabilities_of(model(stored, quantization=(1 / 256, 0)), None), softmax(logits[0]), atol=0.003
    )
    single = model(logits[0][..., :1], head="logits", classes=("a", "b"))
    both = probabilities_of(single, None)
    np.testing.assert_allclose(both[..., 1], 1 / (1 + np.exp(-logits[0][..., 0])), rtol=1e-5)
    np.testing.assert_allclose(both.sum(-1), 1, rtol=1e-6)


def test_a_picture_of_one_value_is_empty_when_asked_for(logits):
    files, blank = [model(logits[0], head="logits")], np.full((6, 7, 3), 9, np.uint8)
    touched = blank.copy()
    touched[2, 3, 1] += 1
    asked = PostProcessing(blank_is_empty=True)
    assert not answer(files, blank, processing=asked).any()
    np.testing.assert_array_equal(answer(files, touched, processing=asked), logits[0].argmax(-1))
    assert answer(files, blank).any()


def test_class_maps_and_files_of_other_classes_cannot_answer_together(logits):
    maps = model(logits[0].argmax(-1).astype(np.int8)[..., None], head="class_map")
    with pytest.raises(InputError, match="gives class maps, and probabilities are needed"):
        answer([maps], None, processing=PostProcessing(random_walker=(0.3, 0.5)))
    with pytest.raises(InputError, match="cannot answer together"):
        answer([model(logits[0]), model(logits[1], classes=("a", "b", "d"))], None)


def test_regions_below_the_minimum_become_background():
    ids = np.zeros((6, 8), np.uint8)
    ids[0:2, 0:2], ids[2, 2], ids[4:6, 4:8], ids[0, 7], ids[1, 7] = 1, 1, 2, 2, 1
    cleaned = drop_small(ids, 3)
    expected = ids.copy()
    expected[0:2, 7] = 0  # two pixels of two classes; the corner neighbour at (2, 2) belongs to its region
    np.testing.assert_array_equal(cleaned, expected)
    np.testing.assert_array_equal(drop_small(ids, 9), 0)


def test_random_walks_fill_a_gap_between_sure_pixels_and_leave_sure_ones():
    foreground = np.full((9, 15), 0.1, np.float32)
    foreground[3:6, 2:13] = 0.9
    foreground[3:6, 7] = 0.58  # unsure, between sure neighbours of the class
    foreground[0, 0] = 0.4  # unsure, far from the class
    walked = walk(np.stack([1 - foreground, foreground], -1), 0.3, 0.6)
    expected = np.zeros((9, 15), np.uint8)
    expected[3:6, 2:13] = 1
    np.testing.assert_array_equal(walked, expected)


def test_random_walks_need_two_sure_classes_and_take_the_likeliest_without():
    unsure = np.full((4, 5, 3), 1 / 3, np.float32) + np.array([0, 0.02, 0.01], np.float32)
    np.testing.assert_array_equal(walk(unsure, 0.3, 0.6), 1)
    three = np.zeros((4, 9, 3), np.float32)
    three[:, :3, 0], three[:, 3:6, 2], three[:, 6:, 2] = 1, 0.5, 0.9  # class 1 is nowhere sure: labels have a gap
    three[:, 3:6, 0] = 0.5
    assert set(np.unique(walk(three, 0.3, 0.6))) == {0, 2}
    np.testing.assert_array_equal(walk(three, 0.3, 0.6)[:, 7:], 2)


@pytest.mark.parametrize("seed", [8, 29])
def test_random_walks_are_solved_exactly(seed):
    foreground = gaussian_filter(np.random.default_rng(seed).standard_normal((36, 36)), 1.0)
    foreground = 1 / (1 + np.exp(-8 * foreground))
    seeds = np.where(foreground < 0.3, 1, np.where(foreground > 0.9, 2, 0))
    walked = walk(np.stack([1 - foreground, foreground], -1).astype(np.float32), 0.3, 0.9)
    np.testing.assert_array_equal(walked, random_walker(foreground, seeds, mode="bf") - 1)


def test_without_scikit_image_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    with pytest.raises(InputError, match="need scikit-image; pip install scikit-image"):
        drop_small(np.zeros((2, 2), np.uint8), 3)


@pytest.mark.parametrize("options", [{"min_pixels": -1}, {"random_walker": (0.6, 0.3)}, {"random_walker": (0, 0.3)}])
def test_wrong_settings_are_answered(options):
    with pytest.raises(InputError, match=r"min_pixels is -1|0 < low < high < 1"):
        PostProcessing(**options)


def test_scores_of_pictures_have_what_the_systems_report():
    rng = np.random.default_rng(2)
    truth = (rng.random((4, 12, 16)) < 0.3).astype(np.uint8)
    truth[1] = 0
    guess = np.where(rng.random(truth.shape) < 0.9, truth, 1 - truth).astype(np.uint8)
    quality = measure_quality(
        lambda image: guess[int(image[0, 0, 0])], np.arange(4).reshape(4, 1, 1, 1), truth, classes=2
    )
    scores = score_quality(quality, truth, ["background", "vessel"])
    assert scores["kaggle_dice"] == kaggle_dice(truth, guess, 2)
    assert scores["kaggle_dice"]["all_empty"] == 0.25
    tp, fp = ((truth & guess) == 1).sum(), ((guess == 1) & (truth == 0)).sum()
    fn, tn = ((truth == 1) & (guess == 0)).sum(), ((truth == 0) & (guess == 0)).sum()
    # (11) to (17) of arXiv 2210.07451
    assert scores["sensitivity"]["vessel"] == pytest.approx(tp / (tp + fn))
    assert scores["specificity"]["vessel"] == pytest.approx(tn / (tn + fp))
    assert scores["pixel_accuracy"] == pytest.approx((tp + tn) / truth.size)
    assert scores["balanced_accuracy"] == pytest.approx((tp / (tp + fn) + tn / (tn + fp)) / 2)
    assert scores["dice"]["vessel"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert scores["iou"]["vessel"] == pytest.approx(tp / (tp + fp + fn))
    assert scores["error"] == pytest.approx(1 - scores["pixel_accuracy"])
    assert 0 < scores["boundary_iou"]["vessel"] < 1
    assert score_confusions(quality.confusions, ["a", "b"])["kaggle_dice"] == scores["kaggle_dice"]
