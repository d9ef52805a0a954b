"""Latencies as HdrHistograms: kept raw beside every result, so that anybody can compute another percentile.

From 1 microsecond to 2 minutes with three significant digits, which is finer than the differences that the
verdicts speak of. What is longer counts as two minutes, and is counted. It refuses a latency that is no
number, and a text that holds no histogram. Source: HdrHistogram, encoding V2, base64.
"""

import binascii
import math
import zlib
from collections.abc import Iterable

from hdrh.codec import HdrCookieException, HdrHistogramSettingsException, HdrLengthException
from hdrh.histogram import HdrHistogram

from lab.errors import FAILED, LabError

LEAST_US, MOST_US, DIGITS = 1, 120_000_000, 3
SHARES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}
NOT_DECODED = (
    HdrCookieException,
    HdrHistogramSettingsException,
    HdrLengthException,
    binascii.Error,
    zlib.error,
)


def record(latencies_ms: Iterable[float]) -> HdrHistogram:
    """The histogram of latencies given in ms. Raises ValueError for one that is not finite."""
    histogram = HdrHistogram(LEAST_US, MOST_US, DIGITS)
    for each in latencies_ms:
        if not math.isfinite(each):
            raise ValueError(f"{each} is no latency")
        histogram.record_value(min(max(round(each * 1000), LEAST_US), MOST_US))
    return histogram


def clamped(histogram: HdrHistogram) -> int:
    """How many latencies were of two minutes or more, and count as two minutes."""
    return int(histogram.get_count_at_value(MOST_US))


def encode(histogram: HdrHistogram) -> str:
    """As text: base64 of the compressed V2 encoding."""
    return str(histogram.encode().decode("ascii"))


def decode_all(texts: Iterable[str]) -> HdrHistogram:
    """All these histograms added up. Raises `LabError` for a text that holds none."""
    total = HdrHistogram(LEAST_US, MOST_US, DIGITS)
    for text in texts:
        try:
            total.decode_and_add(text)
        except NOT_DECODED as error:
            raise LabError(f"{text[:20]!r} is no HdrHistogram (V2, base64): {error}", FAILED) from error
    return total


def summary(histogram: HdrHistogram) -> dict[str, float]:
    """p50, p90, p95, p99, max and mean in ms; empty for nothing."""
    if not histogram.get_total_count():
        return {}
    told = {name: histogram.get_value_at_percentile(share) / 1000 for name, share in SHARES.items()}
    return {**told, "max": histogram.get_max_value() / 1000, "mean": histogram.get_mean_value() / 1000}


def curve(histogram: HdrHistogram, shares: Iterable[float]) -> list[tuple[float, float]]:
    """(share in per cent, latency in ms) at each of the shares."""
    wanted = list(shares)
    found = histogram.get_percentile_to_value_dict(wanted)  # in one pass; share by share takes seconds
    return [(share, found.get(share, 0) / 1000) for share in wanted]
