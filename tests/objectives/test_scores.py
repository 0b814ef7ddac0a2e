"""Counts and scores against scikit-learn, brute force and numbers done by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from sklearn import metrics as reference

from tfprune.errors import InputError
from tfprune.objectives import (
    Counts,
    boundary_iou,
    count_confusion,
    count_confusions,
    kaggle_dice,
    score_confusions,
)

NAMES = ["background", "rust", "pit"]


@pytest.fixture(scope="module")
def maps() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, (5, 20, 30)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 3, truth.shape)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    return truth, predicted


def judged_pixels(truth, predicted):
    return truth[truth != 255], predicted[truth != 255]


def test_confusion_equals_scikit_learn(maps):
    np.testing.assert_array_equal(
        count_confusion(*maps, 3), reference.confusion_matrix(*judged_pixels(*maps), labels=[0, 1, 2])
    )


def test_counts_equal_scikit_learn(maps):
    counts = Counts.from_confusion(count_confusion(*maps, 3))
    by_class = reference.multilabel_confusion_matrix(*judged_pixels(*maps), labels=[0, 1, 2])
    np.testing.assert_array_equal(np.stack([counts.tn, counts.fp, counts.fn, counts.tp], -1), by_class.reshape(3, 4))


def test_confusions_are_one_per_image(maps):
    confusions = count_confusions(*maps, 3)
    assert confusions.shape == (5, 3, 3)
    np.testing.assert_array_equal(confusions.sum(0), count_confusion(*maps, 3))


@pytest.mark.parametrize(
    ("truth", "predicted", "text"),
    [
        ([0, 1], [0, 2], r"prediction holds class ids 0 to 2, but 2 classes"),
        ([0, 7], [0, 1], r"truth holds class ids 0 to 7"),
        ([0, 1], [0, 1, 1], "differ in shape"),
        ([0, 1], [0.0, 1.0], "integer class ids"),
    ],
)
def test_counting_refuses_what_is_no_class_map(truth, predicted, text):
    with pytest.raises(InputError, match=text):
        count_confusion(np.array(truth), np.array(predicted), 2)


def test_scores_equal_scikit_learn(maps):
    truth, predicted = judged_pixels(*maps)
    scores = score_confusions(count_confusions(*maps, 3), NAMES)

    def values(key):
        return list(scores[key].values())

    assert values("iou") == pytest.approx(reference.jaccard_score(truth, predicted, average=None))
    assert values("dice") == pytest.approx(reference.f1_score(truth, predicted, average=None))
    assert values("precision") == pytest.approx(reference.precision_score(truth, predicted, average=None))
    assert values("sensitivity") == pytest.approx(reference.recall_score(truth, predicted, average=None))
    assert values("specificity") == pytest.approx(
        [reference.recall_score(truth != k, predicted != k) for k in range(3)]
    )
    assert scores["mean_iou"] == pytest.approx(reference.jaccard_score(truth, predicted, average="macro"))
    assert scores["mean_dice"] == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    assert scores["mean_iou_foreground"] == pytest.approx(
        reference.jaccard_score(truth, predicted, labels=[1, 2], average="macro")
    )
    assert scores["pixel_accuracy"] == pytest.approx(reference.accuracy_score(truth, predicted))
    assert scores["error"] == pytest.approx(1 - reference.accuracy_score(truth, predicted))
    assert scores["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(truth, predicted))
    imagewise = [
        reference.jaccard_score(*judged_pixels(one, other), average="micro") for one, other in zip(*maps, strict=True)
    ]
    assert scores["micro_imagewise_iou"] == pytest.approx(np.mean(imagewise))


def test_two_class_scores_by_hand():
    scores = score_confusions(np.array([[[50, 10], [5, 35]]]), ["background", "vessel"])
    assert scores["sensitivity"]["vessel"] == pytest.approx(35 / 40)
    assert scores["specificity"]["vessel"] == pytest.approx(50 / 60)
    assert scores["balanced_accuracy"] == pytest.approx((35 / 40 + 50 / 60) / 2)
    assert scores["dice"]["vessel"] == pytest.approx(70 / 85)
    assert scores["iou"]["vessel"] == pytest.approx(35 / 50)
    assert scores["error"] == pytest.approx(0.15)
    assert scores["truth_ratio"] == {"background": 0.6, "vessel": 0.4}
    assert scores["answer_ratio"] == {"background": 0.55, "vessel": 0.45}


def test_an_absent_class_is_none_and_left_out_of_means():
    confusion = np.array([[[6, 2, 0], [0, 2, 0], [0, 0, 0]]])
    scores = score_confusions(confusion, NAMES)
    assert scores["iou"] == {"background": 0.75, "rust": 0.5, "pit": None}
    assert scores["mean_iou"] == 0.625
    assert scores["mean_iou_foreground"] == 0.5
    assert scores["dice"]["pit"] is None
    assert scores["precision"]["pit"] is None
    assert scores["sensitivity"]["pit"] is None
    assert scores["specificity"]["pit"] == 1.0
    assert scores["balanced_accuracy"] == pytest.approx((0.75 + 1) / 2)


def test_one_class_everywhere_scores_high_micro_imagewise():
    """The trap of S1: 80 % background gives .667 micro-imagewise and 0 for the class that matters."""
    scores = score_confusions(np.array([[[80, 0], [20, 0]]]), ["background", "corrosion"])
    assert scores["micro_imagewise_iou"] == pytest.approx(80 / 120)
    assert scores["iou"]["corrosion"] == 0.0


def test_nothing_judged_gives_none_everywhere():
    scores = score_confusions(np.zeros((1, 2, 2), int), ["a", "b"])
    assert scores["mean_iou"] is scores["pixel_accuracy"] is scores["micro_imagewise_iou"] is None


def test_confusions_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"\(N, 3, 3\), not \(3, 3\)"):
        score_confusions(np.zeros((3, 3), int), NAMES)


def test_boundary_iou_by_hand():
    truth = np.zeros((1, 12, 12), np.uint8)
    truth[0, 3:9, 3:9] = 1
    shifted = np.roll(truth, 1, axis=2)
    background, square = boundary_iou(truth, shifted, 2, dilation_ratio=0.02)
    # 6x6 rings of one pixel, 20 pixels each, one column apart: the two horizontal sides share 5 each,
    # and no vertical side meets another but in those
    assert square == pytest.approx(10 / 30)
    assert 0 < background < 1
    assert boundary_iou(truth, truth, 2) == (1.0, 1.0)


def test_boundary_iou_of_a_right_answer_is_1_beside_what_is_not_judged():
    answer = np.ones((1, 40, 40), np.uint8)
    answer[:, :5] = 0
    truth = answer.copy()
    truth[:, :, 20:] = 255
    assert boundary_iou(truth, answer, 2) == (1.0, 1.0)


def test_boundary_iou_equals_repeated_erosion(maps):
    truth, predicted = (np.repeat(np.repeat(part, 4, 1), 4, 2) for part in maps)
    distance = round(0.02 * np.hypot(80, 120))
    assert distance == 3
    square = np.ones((1, 3, 3))
    expected = []
    for k in range(3):
        masks = (truth == k, (predicted == k) & (truth != 255))
        edges = [mask & ~binary_erosion(mask, square, distance) for mask in masks]
        expected.append((edges[0] & edges[1]).sum() / (edges[0] | edges[1]).sum())
    assert boundary_iou(truth, predicted, 3) == pytest.approx(expected)


def test_boundary_iou_of_an_absent_class_is_none():
    empty = np.zeros((2, 8, 8), np.uint8)
    assert boundary_iou(empty, empty, 2) == (1.0, None)


def test_boundary_iou_wants_class_maps():
    with pytest.raises(InputError, match=r"\(N, H, W\)"):
        boundary_iou(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), 2)


def test_kaggle_dice_by_hand():
    truth = np.array([[[1, 1, 0, 0]], [[0, 0, 0, 0]], [[2, 2, 2, 1]]], np.uint8)
    predicted = np.array([[[1, 0, 0, 0]], [[0, 0, 0, 2]], [[2, 2, 2, 0]]], np.uint8)
    # image 1: class 1 2/3, class 2 empty/empty 1; image 2: 1, 0; image 3: 0, 1
    assert kaggle_dice(truth, predicted, 3) == {
        "score": pytest.approx((2 / 3 + 1 + 1 + 0 + 0 + 1) / 6),
        "all_empty": pytest.approx(3 / 6),
        "defect_positive": pytest.approx((2 / 3 + 0 + 1) / 3),
    }


def test_kaggle_dice_of_the_all_empty_answer_is_the_row_beside_it(maps):
    truth, predicted = maps
    scores = kaggle_dice(truth, predicted, 3)
    assert kaggle_dice(truth, np.zeros_like(predicted), 3)["score"] == scores["all_empty"]
    assert kaggle_dice(np.zeros_like(truth), np.zeros_like(truth), 3)["defect_positive"] is None


def test_scores_need_no_tensorflow():
    code = "import sys, tfprune.objectives; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
