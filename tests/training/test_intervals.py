"""95 % intervals, compared with published values, other methods and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, multinomial, norm, t, ttest_1samp

from rapdarts.training.intervals import (
    NORMAL,
    Comparison,
    accuracy_interval,
    compare,
    mcnemar,
    mean_in_words,
    mean_interval,
    mean_of_shares,
    paired_interval,
    percent,
    student,
    wilson,
)


def test_wilson_of_published_examples() -> None:
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29."""
    for right, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(right / n, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000), st.data())
def test_wilson_equals_the_roots_of_its_equation(n: int, data: st.DataObject) -> None:
    """The limits are the shares p with |share - p| = z x the standard error at p; scipy computes them too."""
    right = data.draw(st.integers(0, n))
    low, high = wilson(right / n, n)
    assert 0 <= low <= right / n <= high <= 1
    found = binomtest(right, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((found.low, found.high), abs=1e-9)
    for limit in (low, high):
        if 0 < limit < 1:
            assert abs(right / n - limit) == pytest.approx(NORMAL * math.sqrt(limit * (1 - limit) / n), abs=1e-9)
    assert (low == 0) == (right == 0) and (high == 1) == (right == n)
    assert pytest.approx(norm.ppf(0.975), rel=1e-15) == NORMAL


@pytest.mark.parametrize(("share", "n"), [(1.1, 10), (-0.1, 10), (0.5, 0), (math.nan, 10)])
def test_impossible_shares_are_refused(share: float, n: int) -> None:
    with pytest.raises(ValueError, match="is impossible"):
        wilson(share, n)


def test_accuracies_in_words() -> None:
    assert percent(1.0, wilson(1.0, 600), ", n = 600") == "100.00 % (95 % interval 99.36 to 100.00 %, n = 600)"
    assert percent(0.99, wilson(0.99, 600)) == "99.00 % (95 % interval 97.84 to 99.54 %)"
    assert mean_in_words([0.5]) == "50.00 % (a single genotype)"
    # t(2) = 4.3027; the standard error is 0.01 / sqrt(3)
    assert mean_in_words([0.5, 0.51, 0.52]) == (
        "51.00 % (95 % interval 48.52 to 53.48 %, mean of 3 genotypes, standard deviation 1.00 %)"
    )


def test_few_trainings_have_students_interval() -> None:
    values = [0.91, 0.93, 0.92]
    assert student(values) == pytest.approx(4.302652729911275 * 0.01 / math.sqrt(3))
    found = ttest_1samp(values, 0).confidence_interval()
    assert mean_interval(values) == pytest.approx((found.low, found.high))
    assert student([0.9]) == 0 and mean_interval([0.99, 1.0, 1.0])[1] == 1
    assert student([0.9, 0.92]) == pytest.approx(t.ppf(0.975, 1) * 0.01)


def test_one_training_has_wilsons_interval_and_several_add_students() -> None:
    assert accuracy_interval([0.97], 600) == wilson(0.97, 600)
    accuracies = [0.95, 0.97, 0.96]
    low, high = wilson(0.96, 600)
    both = [math.hypot(distance, student(accuracies)) for distance in (0.96 - low, high - 0.96)]
    assert accuracy_interval(accuracies, 600) == pytest.approx((0.96 - both[0], 0.96 + both[1]))
    assert accuracy_interval([1.0, 1.0], 600) == wilson(1.0, 600)
    assert accuracy_interval([0.9, 1.0], 20)[1] == 1 and accuracy_interval([0.0, 0.1], 20)[0] == 0


def test_the_mean_over_classes_combines_their_intervals() -> None:
    assert mean_of_shares([0.7], [50]) == pytest.approx(wilson(0.7, 50))
    low, high = mean_of_shares([1.0, 1.0], [90, 10])
    assert high == 1 and low == pytest.approx(1 - math.hypot(1 - wilson(1, 90)[0], 1 - wilson(1, 10)[0]) / 2)
    # For large classes, the distance to the limits is 1.96 standard errors.
    low, high = mean_of_shares([0.6, 0.8], [40_000, 10_000])
    half = NORMAL * math.sqrt(0.24 / 40_000 + 0.16 / 10_000) / 2
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), abs=1e-4)


def paired(first_only: int, second_only: int, n: int) -> np.ndarray:
    """Return the differences (1, n) of two networks, each right alone on some images."""
    return np.array([[1.0] * first_only + [-1.0] * second_only + [0.0] * (n - first_only - second_only)])


def test_a_paired_difference_follows_bonett_and_price() -> None:
    """(b + 1) / (n + 2) - (c + 1) / (n + 2), with the variance of that difference."""
    p, q = (9 + 1) / 102, (3 + 1) / 102
    half = NORMAL * math.sqrt((p + q - (p - q) ** 2) / 102)
    assert paired_interval(paired(9, 3, 100)) == pytest.approx((p - q - half, p - q + half))
    # With five images that only the first classifies correctly, an exact test (McNemar) gives p = 0.06.
    assert binomtest(5, 5).pvalue == pytest.approx(0.0625)
    assert paired_interval(paired(5, 0, 596))[0] < 0 < paired_interval(paired(8, 0, 596))[0]
    low, high = paired_interval(paired(0, 0, 50))
    assert low == pytest.approx(-high) and high > 0


@pytest.mark.parametrize("first_only, second_only", [(0, 0), (1, 0), (5, 0), (9, 3), (3, 9), (7, 7), (2, 9)])
def test_mcnemar_counts_the_outcomes_that_are_at_most_as_likely(first_only: int, second_only: int) -> None:
    """Each image on which the networks differ goes to either with probability 1/2; every outcome is enumerated."""
    n = first_only + second_only
    ways = [math.comb(n, k) for k in range(n + 1)]
    assert mcnemar(first_only, second_only) == pytest.approx(sum(w for w in ways if w <= ways[first_only]) / 2**n)


def test_mcnemar_of_published_values_and_by_hand() -> None:
    assert mcnemar(9, 3) == pytest.approx(2 * (1 + 12 + 66 + 220) / 4096)
    assert mcnemar(5, 0) == pytest.approx(1 / 16) and mcnemar(6, 0) == pytest.approx(1 / 32)
    assert mcnemar(12, 2) == pytest.approx(0.0129, abs=5e-5)  # Armitage and Berry 1994, p. 127
    for impossible in ((-1, 3), (3, -1)):
        with pytest.raises(ValueError, match="-1 images"):
            mcnemar(*impossible)


def test_two_networks_are_compared_image_by_image() -> None:
    first = np.array([True] * 7 + [False] * 1 + [True] * 12 + [False] * 1)
    second = np.array([False] * 7 + [True] * 1 + [True] * 12 + [False] * 1)
    # (7 + 1) / 23 - (1 + 1) / 23, with the variance of that difference
    half = NORMAL * math.sqrt((10 / 23 - (6 / 23) ** 2) / 23)
    found = compare(first, second)
    assert found == Comparison(21, 7, 1, 6 / 21, found.interval, mcnemar(7, 1))
    assert found.interval == pytest.approx((6 / 23 - half, 6 / 23 + half))
    for one, other in ((first, second[1:]), (first[None], second[None]), (first[:0], second[:0])):
        with pytest.raises(ValueError, match="cannot be compared"):
            compare(one, other)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_a_comparison_is_symmetric_and_contains_its_estimate(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs).T
    one, other = compare(first, second), compare(second, first)
    assert other.difference == -one.difference == pytest.approx(second.mean() - first.mean())
    assert (other.first_only, other.second_only, other.p) == (one.second_only, one.first_only, one.p)
    assert other.interval == pytest.approx((-one.interval[1], -one.interval[0]))
    assert -1 <= one.interval[0] <= one.difference <= one.interval[1] <= 1
    assert 0 < one.p <= 1 and (one.first_only != one.second_only or one.p == 1)
    if one.first_only + one.second_only:
        assert one.p == pytest.approx(binomtest(one.first_only, one.first_only + one.second_only).pvalue)


def test_the_interval_of_a_difference_rarely_contradicts_the_exact_test() -> None:
    """They disagree on 34 of 1,681 pairs of counts up to 40, of 600 images (Tango's interval on 58, Newcombe's on 38)."""
    counts = [(first, second) for first in range(41) for second in range(41)]
    limits = [paired_interval(paired(first, second, 600)) for first, second in counts]
    sure = [low > 0 or high < 0 for low, high in limits]
    assert sum(one != (mcnemar(*pair) < 0.05) for one, pair in zip(sure, counts, strict=True)) == 34


@pytest.mark.parametrize(("p", "q", "expected"), [(0.005, 0, 0.9495), (0.005, 0.005, 0.9874), (0.01, 0.002, 0.9631)])
def test_the_interval_of_a_difference_covers_the_truth_where_few_images_differ(
    p: float, q: float, expected: float
) -> None:
    """The coverage is the exact sum over all numbers of images, of 600, that only one network classifies correctly."""
    covered = 0.0
    for first in range(40):
        for second in range(40 if q else 1):
            low, high = paired_interval(paired(first, second, 600))
            if low <= p - q <= high:
                covered += multinomial.pmf([first, second, 600 - first - second], 600, [p, q, 1 - p - q])
    assert covered == pytest.approx(expected, abs=1e-4)


def test_several_seeds_add_their_variation_to_a_difference() -> None:
    seeds = np.concatenate([paired(12, 2, 200), paired(20, 2, 200), paired(16, 2, 200)])
    low, high = paired_interval(seeds)
    each = np.append(seeds.mean(0), [1, -1])
    half = math.hypot(NORMAL * each.std() / math.sqrt(202), student([0.05, 0.09, 0.07]))
    assert (low, high) == pytest.approx((each.mean() - half, each.mean() + half))


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_the_intervals_cover_the_truth_in_95_of_100_cases(share: float) -> None:
    """Among 4,000 simulated test sets of 600 images, and differences of networks that are equally good."""
    rng = np.random.default_rng(0)
    covered = [low <= share <= high for low, high in (wilson(k / 600, 600) for k in rng.binomial(600, share, 4000))]
    assert 0.93 <= np.mean(covered) <= 0.975
    alone = rng.multinomial(600, [0.1 * (1 - share), 0.1 * (1 - share), 1 - 0.2 * (1 - share)], 4000)
    limits = [paired_interval(paired(first, second, 600)) for first, second, _ in alone]
    assert np.mean([low <= 0 <= high for low, high in limits]) >= 0.94
