"""Latency histograms: percentiles as the values have them, and the same after they were text."""

import random
import statistics

import pytest

from lab.bench.intervals import percentile
from lab.compare.histograms import clamped, curve, decode_all, encode, record, summary
from lab.errors import LabError

THREE_DIGITS = 0.001


def latencies(seed: int, count: int) -> list[float]:
    """Log-normal around 20 ms, as a service's are, down to some tenths and up to some seconds."""
    chance = random.Random(seed)
    return [chance.lognormvariate(3, 1) for _ in range(count)]


def test_figures_are_those_of_the_values_to_three_digits() -> None:
    values = sorted(latencies(20, 10_000))
    told = summary(record(values))
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        assert told[name] == pytest.approx(percentile(values, share), rel=THREE_DIGITS)
    assert told["mean"] == pytest.approx(statistics.fmean(values), rel=THREE_DIGITS)


def test_a_histogram_is_the_same_after_it_was_text() -> None:
    before = record(latencies(20, 1000))
    text = encode(before)
    after = decode_all([text])
    assert text.startswith("HISTFAAA")  # what every implementation of the format begins with
    assert summary(after) == summary(before)
    assert curve(after, range(101)) == curve(before, range(101))
    assert encode(after) == text


def test_histograms_that_are_added_up_are_that_of_all_values() -> None:
    parts = [latencies(seed, 500) for seed in range(5)]
    added = decode_all(encode(record(part)) for part in parts)
    assert summary(added) == summary(record(value for part in parts for value in part))
    assert added.get_total_count() == 2500


def test_what_is_beyond_two_minutes_counts_as_two_minutes_and_is_counted() -> None:
    histogram = record([1.0, 119_000.0, 120_000.0, 500_000.0])
    assert histogram.get_total_count() == 4
    assert clamped(histogram) == clamped(decode_all([encode(histogram)])) == 2
    assert summary(histogram)["max"] == pytest.approx(120_000, rel=THREE_DIGITS)


@pytest.mark.parametrize("too_short", [0.0, -3.0, 0.0001])
def test_what_is_below_a_microsecond_counts_as_one(too_short: float) -> None:
    assert summary(record([too_short]))["max"] == 0.001


def test_of_nothing_there_are_no_figures() -> None:
    assert summary(record([])) == summary(decode_all([])) == {}
    assert clamped(record([])) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="no latency"):
        record([value])


@pytest.mark.parametrize("text", ["", "nonsense!", "A" * 60, encode(record([1.0]))[:-8], "HISTFAAAA"])
def test_a_text_that_holds_no_histogram_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="is no HdrHistogram"):
        decode_all([text])
