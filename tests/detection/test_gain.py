import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from detection import Detections
from detection.coco import BINS, Evaluation, evaluate, reference_metrics
from detection.gain import Gain, _training_error, paired_gains, seeded_gains
from detection.precision_recall import measure
from detection.truth import CocoSet, Objects, Picture

METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AR", "AP_8_16")


def fuzzed(seed: int, *, images: int = 14) -> tuple[CocoSet, dict[int, Detections]]:
    """A set with crowds, empty pictures and mask areas, and detections with tied scores."""
    random = np.random.default_rng(seed)
    objects, found, pictures = {}, {}, []
    for image in range(images):
        pictures.append(Picture(image, f"{image}.png", 300, 300))
        count = int(random.integers(0, 9)) if image % 4 else 0
        corner, side = random.uniform(0, 200, (count, 2)), random.uniform(4, 100, (count, 2))
        boxes = torch.tensor(np.concatenate([corner, corner + side], 1), dtype=torch.float32)
        labels = torch.from_numpy(random.integers(1, 4, count))
        areas = torch.from_numpy(side.prod(1) * random.uniform(0.5, 1, count))
        crowds = torch.from_numpy(random.random(count) < 0.2)
        objects[image] = Objects(boxes.reshape(-1, 4), labels, areas, crowds)
        found[image] = noisy(objects[image], random)
    categories = {1: "car", 2: "boat", 3: "aircraft", 9: "never seen"}
    return CocoSet("fuzzed", tuple(pictures), categories, objects, []), found  # type: ignore[arg-type]


def noisy(objects: Objects, random: np.random.Generator) -> Detections:
    """Two noisy copies of most objects and some that are not there, scores in steps of a tenth."""
    keep = torch.from_numpy(random.random(2 * len(objects)) < 0.7)
    boxes = objects.boxes.repeat(2, 1)[keep]
    boxes = boxes + torch.from_numpy(random.normal(0, 3, tuple(boxes.shape))).float()
    corner = random.uniform(0, 200, (4, 2))
    extra = torch.tensor(np.concatenate([corner, corner + random.uniform(4, 90, (4, 2))], 1))
    boxes = torch.cat([boxes, extra.float()])
    labels = torch.cat([objects.labels.repeat(2)[keep], torch.from_numpy(random.integers(1, 4, 4))])
    scores = torch.from_numpy(random.integers(1, 10, len(boxes)) / 10).float()
    return Detections(boxes, scores, labels)


def weighted_metrics(evaluation: Evaluation, weights: np.ndarray) -> dict[str, float]:
    """All metrics under whole image weights."""
    column = torch.from_numpy(weights).double()[:, None]
    values = measure(evaluation.matches, list(evaluation.metrics), column)
    return {name: float(value[0]) for name, value in values.items()}


def repeated(
    truth: CocoSet, found: dict[int, Detections], weights: np.ndarray
) -> tuple[CocoSet, dict[int, Detections]]:
    """The set in which image i really stands weights[i] times."""
    pictures, objects, detections = [], {}, {}
    for picture, times in zip(truth.images, weights, strict=True):
        for _ in range(int(times)):
            identity = len(pictures)
            pictures.append(replace(picture, id=identity))
            objects[identity] = truth.objects[picture.id]
            detections[identity] = found[picture.id]
    drawn = CocoSet(truth.path, tuple(pictures), truth.categories, objects, [])
    return drawn, detections


def same(first: dict[str, float], second: dict[str, float]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value == pytest.approx(second[name], abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("seed", range(6))
def test_unit_weights_give_exactly_the_figures_of_pycocotools(seed: int) -> None:
    truth, found = fuzzed(seed)
    evaluation = evaluate(truth, found)
    reference = reference_metrics(truth, found)
    same(weighted_metrics(evaluation, np.ones(len(truth.images))), reference)
    assert 0.02 < evaluation.metrics["AP"] < 0.98


@pytest.mark.parametrize("seed", range(4))
def test_weights_equal_a_set_in_which_the_images_really_repeat(seed: int) -> None:
    truth, found = fuzzed(seed)
    # Scores all different: among equal scores the order of images would decide.
    ranks = iter(np.random.default_rng(seed).permutation(10_000) / 10_000)
    found = {
        image: Detections(d.boxes, torch.tensor([next(ranks) for _ in range(len(d))]), d.labels)
        for image, d in found.items()
    }
    weights = np.random.default_rng(seed).multinomial(14, [1 / 14] * 14)
    assert weights.max() > 1
    assert weights.min() == 0
    drawn = evaluate(*repeated(truth, found, weights))
    same(weighted_metrics(evaluate(truth, found), weights), drawn.metrics)


def test_identical_arms_differ_by_exactly_nothing() -> None:
    truth, found = fuzzed(3)
    arms = {"bicubic": evaluate(truth, found), "copy": evaluate(truth, found)}
    gains = paired_gains(arms, reference="bicubic", resamples=50, metrics=METRICS)
    assert [gain.metric for gain in gains] == list(METRICS)
    for gain in gains:
        assert (gain.difference, gain.low, gain.high) == (0, 0, 0)
        assert gain.p_positive == 0.5
        assert gain.verdict == "inconclusive"


def better_and_worse() -> dict[str, Evaluation]:
    truth, found = fuzzed(5, images=40)
    perfect = {
        image: Detections(o.boxes, torch.ones(len(o)), o.labels)
        for image, o in truth.objects.items()
    }
    none: dict[int, Detections] = {}
    return {
        "bicubic": evaluate(truth, found),
        "oracle": evaluate(truth, perfect),
        "blind": evaluate(truth, none),
    }


def test_a_perfect_arm_helps_and_a_blind_one_hurts() -> None:
    arms = better_and_worse()
    gains = paired_gains(arms, reference="bicubic", resamples=200, metrics=("AP", "AR"))
    by_name = {(gain.arm, gain.metric): gain for gain in gains}
    assert set(by_name) == {(a, m) for a in ("oracle", "blind") for m in ("AP", "AR")}
    oracle, blind = by_name["oracle", "AP"], by_name["blind", "AP"]
    assert oracle.verdict == "helps"
    assert oracle.p_positive == 1.0
    assert oracle.low < oracle.difference < oracle.high
    assert oracle.difference == oracle.value - oracle.reference_value
    assert blind.verdict == "hurts"
    assert blind.value == 0
    assert blind.images == 40
    assert blind.objects == arms["bicubic"].objects["all"]


def test_pairing_narrows_the_interval() -> None:
    arms = better_and_worse()
    truth, found = fuzzed(5, images=40)
    slightly = {i: d.select(torch.arange(len(d)) > 0) if i == 1 else d for i, d in found.items()}
    arms["slightly"] = evaluate(truth, slightly)
    near, far = (
        paired_gains(
            {"bicubic": arms["bicubic"], a: arms[a]},
            reference="bicubic",
            resamples=200,
            metrics=("AP",),
        )[0]
        for a in ("slightly", "blind")
    )
    # The blind arm is always 0, so its interval is that of the reference alone, unpaired.
    assert near.high - near.low < 0.3 * (far.high - far.low)


def test_the_same_seed_draws_the_same_images_and_another_others() -> None:
    arms = better_and_worse()
    runs = [
        paired_gains(arms, reference="bicubic", resamples=100, seed=seed, metrics=("AP",))
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1]
    assert runs[0][0].low != runs[2][0].low
    assert runs[0][0].difference == runs[2][0].difference


def test_drawing_whole_scenes_widens_the_interval() -> None:
    truth, found = fuzzed(5, images=12)
    # Four scenes of ten identical pictures each.
    weights = np.array([10 if i in (1, 2, 3, 5) else 0 for i in range(12)])
    drawn, detections = repeated(truth, found, weights)
    arms = {"found": evaluate(drawn, detections), "blind": evaluate(drawn, {})}
    scene = {picture.id: picture.file_name for picture in drawn.images}

    def width(groups: dict[int, str] | None) -> float:
        (gain,) = paired_gains(
            arms, reference="blind", resamples=300, metrics=("AP",), groups=groups
        )
        return gain.high - gain.low

    assert width(scene) > 1.5 * width(None)


def test_the_interval_holds_the_spread_of_sets_really_drawn() -> None:
    # The standard error of a mean is known: one object a picture, found or not, gives AR.
    random = np.random.default_rng(0)
    hit = random.random(200) < 0.5
    pictures = tuple(Picture(i, f"{i}", 50, 50) for i in range(200))
    box = torch.tensor([[5.0, 5, 15, 15]])
    one = torch.ones(1, dtype=torch.int64)
    objects = {
        i: Objects(box, one, torch.tensor([100.0]).double(), torch.tensor([False]))
        for i in range(200)
    }
    truth = CocoSet("drawn", pictures, {1: "car"}, objects, [])  # type: ignore[arg-type]
    found = {i: Detections(box, torch.ones(1), one) for i in range(200) if hit[i]}
    arms = {"some": evaluate(truth, found), "none": evaluate(truth, {})}
    (gain,) = paired_gains(arms, reference="none", resamples=4000, metrics=("AR",))
    expected = 2 * 1.96 * math.sqrt(hit.mean() * (1 - hit.mean()) / 200)
    assert gain.high - gain.low == pytest.approx(expected, rel=0.06)


def test_sizes_without_objects_stay_without_verdict() -> None:
    truth, found = fuzzed(2)
    bins = [*BINS, (250.0, 300.0)]
    arms = {name: evaluate(truth, found, bins=bins) for name in ("bicubic", "sr")}
    (gain,) = paired_gains(arms, reference="bicubic", resamples=20, metrics=("AP_250_300",))
    assert math.isnan(gain.difference)
    assert math.isnan(gain.low)
    assert gain.objects == 0
    assert gain.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference": "lanczos"}, "'lanczos' is none of bicubic, sr"),
        ({"reference": "bicubic", "metrics": ("AP99",)}, "unknown metrics"),
    ],
)
def test_an_unknown_arm_or_metric_is_refused(settings: dict[str, object], message: str) -> None:
    truth, found = fuzzed(2)
    arms = {name: evaluate(truth, found) for name in ("bicubic", "sr")}
    with pytest.raises(ValueError, match=message):
        paired_gains(arms, **settings)  # type: ignore[arg-type]


def test_arms_of_different_sets_are_refused() -> None:
    arms = {"bicubic": evaluate(*fuzzed(1)), "sr": evaluate(*fuzzed(1, images=13))}
    with pytest.raises(ValueError, match="not evaluated on the same images"):
        paired_gains(arms, reference="bicubic")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.02, "helps"),
        (-0.02, -0.01, "hurts"),
        (-0.01, 0.02, "inconclusive"),
        (0, 1, "inconclusive"),
    ],
)
def test_the_verdict_follows_the_interval(low: float, high: float, verdict: str) -> None:
    gain = Gain("sr", "bicubic", "AP", 0.1, 0.2, 0.1, low, high, 0.9, 10, 100)
    assert gain.verdict == verdict


def test_bins_that_differ_or_another_limit_on_detections_are_refused() -> None:
    truth, found = fuzzed(2)
    usual = evaluate(truth, found)
    with pytest.raises(ValueError, match="not evaluated on the same images and objects"):
        paired_gains({"bicubic": usual, "sr": evaluate(truth, found, bins=())}, reference="bicubic")
    with pytest.raises(ValueError, match="100 detections an image and 'bicubic' with 500"):
        paired_gains(
            {"bicubic": usual, "sr": evaluate(truth, found, max_detections=100)},
            reference="bicubic",
        )


def test_an_image_without_a_scene_is_refused() -> None:
    truth, found = fuzzed(2)
    arms = {name: evaluate(truth, found) for name in ("bicubic", "sr")}
    with pytest.raises(ValueError, match=r"no group for 13 images.*image id 1"):
        paired_gains(arms, reference="bicubic", groups={0: "a"})


def test_one_picture_alone_gives_no_interval_and_no_verdict() -> None:
    # Every draw is that picture again: a plain percentile interval would have no width at all.
    truth, found = fuzzed(5)
    one = truth.subset([1])
    arms = {"bicubic": evaluate(one, {}), "sr": evaluate(one, {1: found[1]})}
    (gain,) = paired_gains(arms, reference="bicubic", resamples=20, metrics=("AP",))
    assert gain.difference > 0
    assert math.isnan(gain.low)
    assert gain.verdict == "inconclusive"
    assert "one picture" in gain.conclusion


def test_the_smallest_detectable_gain_is_that_of_80_percent_power() -> None:
    gain = replace(GAIN, standard_error=0.01)
    # A true gain of that size gives an estimate 1.96 errors above 0 in 80 of 100 studies.
    estimates = np.random.default_rng(0).normal(gain.detectable, 0.01, 100_000)
    assert (estimates > 0.0196).mean() == pytest.approx(0.8, abs=0.005)


GAIN = Gain("sr", "bicubic", "AP", 0.1, 0.2, 0.1, 0.01, 0.02, 0.9, 10, 100, 0.01)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "sr helps: AP +10.0 points (95 % interval +1.0 to +2.0) against bicubic"),
        (
            {"low": -0.01},
            "inconclusive: AP +10.0 points (95 % interval -1.0 to +2.0); 10 pictures with 100 "
            "objects show a difference of 2.8 points or more, not a smaller one",
        ),
        ({"difference": math.nan}, "AP: not measurable, the set has no object of this size"),
    ],
)
def test_the_conclusion_says_what_may_be_said(changes: dict[str, float], sentence: str) -> None:
    assert replace(GAIN, **changes).conclusion == sentence


def trainings(count: int) -> tuple[Evaluation, list[Evaluation]]:
    """A reference and an arm that was trained several times, with different luck each time."""
    truth, found = fuzzed(5, images=40)
    worse = {i: d.select(torch.arange(len(d)) % 2 == 0) for i, d in found.items()}
    lucky = [
        {i: d.select(torch.arange(len(d)) % 4 <= k) for i, d in found.items()} for k in range(count)
    ]
    return evaluate(truth, worse), [evaluate(truth, each) for each in lucky]


def test_a_single_training_is_the_paired_gain() -> None:
    base, (arm,) = trainings(1)
    settings = {"reference": "bicubic", "resamples": 50, "metrics": ("AP",)}
    one = seeded_gains({"bicubic": [base], "sr": [arm]}, **settings)  # type: ignore[arg-type]
    assert one == paired_gains({"bicubic": base, "sr": arm}, **settings)  # type: ignore[arg-type]
    assert one[0].seeds == 1


def test_trainings_that_disagree_widen_the_interval_and_their_mean_is_the_gain() -> None:
    base, arms = trainings(3)

    def gain(chosen: list[Evaluation]) -> Gain:
        (found,) = seeded_gains(
            {"bicubic": [base], "sr": chosen}, reference="bicubic", resamples=100, metrics=("AP",)
        )
        return found

    several, same_thrice = gain(arms), gain([arms[0]] * 3)
    singles = [gain([arm]) for arm in arms]
    assert several.seeds == 3
    assert several.difference == pytest.approx(np.mean([one.difference for one in singles]))
    assert same_thrice.high - same_thrice.low == pytest.approx(
        singles[0].high - singles[0].low, rel=1e-9
    )
    assert several.high - several.low > 1.5 * max(one.high - one.low for one in singles)


def test_the_spread_of_trainings_is_divided_by_their_number_and_freed_from_the_pictures_luck() -> (
    None
):
    differences = np.array([0.1, 0.3])  # variance 0.02
    luck = np.array([[1.0, -1.0], [-1.0, 1.0]])

    def error(size: float) -> float:
        return _training_error(differences, differences[:, None] + size * luck)

    assert error(0.0) == pytest.approx(math.sqrt(0.02 / 2))
    assert error(0.05) == pytest.approx(math.sqrt((0.02 - 2 * 0.05**2) / 2))
    assert error(0.2) == 0  # luck alone explains more than was seen
    assert _training_error(differences[:1], luck[:1]) == 0


def test_trainings_of_the_reference_are_paired_with_those_of_the_arm() -> None:
    base, arms = trainings(2)
    (gain,) = seeded_gains(
        {"bicubic": arms, "sr": arms}, reference="bicubic", resamples=20, metrics=("AP",)
    )
    assert (gain.difference, gain.low, gain.high, gain.seeds) == (0, 0, 0, 2)
    with pytest.raises(ValueError, match="'sr' has 3 trainings and 'bicubic' 2"):
        seeded_gains({"bicubic": arms, "sr": [base] * 3}, reference="bicubic")
    with pytest.raises(ValueError, match="'sr' has no evaluation"):
        seeded_gains({"bicubic": arms, "sr": []}, reference="bicubic")
