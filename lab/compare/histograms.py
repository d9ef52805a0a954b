"""Latencies as HdrHistograms: kept raw beside every result, so that anybody can compute another percentile.

From 1 microsecond to 2 minutes with three significant digits, which is finer than the differences that the
verdicts speak of. What is longer counts as two minutes. Source: HdrHistogram, encoding V2, base64.
"""

from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

LEAST_US, MOST_US, DIGITS = 1, 120_000_000, 3
SHARES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}


def record(latencies_ms: Iterable[float]) -> HdrHistogram:
    """The histogram of latencies given in ms."""
    histogram = HdrHistogram(LEAST_US, MOST_US, DIGITS)
    for each in latencies_ms:
        histogram.record_value(min(max(round(each * 1000), LEAST_US), MOST_US))
    return histogram


def encode(histogram: HdrHistogram) -> str:
    """As text: base64 of the compressed V2 encoding."""
    return str(histogram.encode().decode("ascii"))


def decode_all(texts: Iterable[str]) -> HdrHistogram:
    """All these histograms added up."""
    total = HdrHistogram(LEAST_US, MOST_US, DIGITS)
    for text in texts:
        total.decode_and_add(text)
    return total


def summary(histogram: HdrHistogram) -> dict[str, float]:
    """p50, p90, p95, p99, max and mean in ms; empty for nothing."""
    if not histogram.get_total_count():
        return {}
    told = {name: histogram.get_value_at_percentile(share) / 1000 for name, share in SHARES.items()}
    return {**told, "max": histogram.get_max_value() / 1000, "mean": histogram.get_mean_value() / 1000}


def curve(histogram: HdrHistogram, shares: Iterable[float]) -> list[tuple[float, float]]:
    """(share in per cent, latency in ms) at each of the shares."""
    return [(share, histogram.get_value_at_percentile(share) / 1000) for share in shares]
