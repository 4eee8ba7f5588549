"""Intervals against what theory says of them."""

import math
import random

import pytest

from client.evaluating.bootstrap import intervals


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    draws = random.Random(7)
    values = [draws.random() for _ in range(400)]
    mean = math.fsum(values) / len(values)
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values)) / len(values)
    low, high = intervals({"a": values}, resamples=4_000)["a"]
    assert low == pytest.approx(mean - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.2 * error)


def test_series_are_resampled_by_the_same_queries():
    draws = random.Random(7)
    first = [draws.random() for _ in range(50)]
    # Always .1 better: paired, nothing of the queries' own spread is left in the difference.
    second = [value + 0.1 for value in first]
    found = intervals(
        {"a": first, "b": second, "b-a": [b - a for a, b in zip(first, second, strict=True)]}
    )
    assert found["b-a"] == pytest.approx((0.1, 0.1))
    assert found["b"] == pytest.approx((found["a"][0] + 0.1, found["a"][1] + 0.1))
    assert found["a"][1] - found["a"][0] > 0.1


def test_the_same_seed_gives_the_same_interval_and_another_another():
    values = {"a": [0.0, 0.25, 0.5, 1.0, 1.0, 0.125, 0.75]}
    assert intervals(values) == intervals(values)
    assert intervals(values, resamples=50, seed=2) != intervals(values, resamples=50, seed=3)


def test_one_query_has_an_interval_of_no_width():
    assert intervals({"a": [0.5]})["a"] == (0.5, 0.5)
