"""The raw data as links that hold them, so that one page has all that it speaks of."""

import base64
import gzip
from collections.abc import Mapping

from lab.report.parts import Download, Downloads, Says, Section

PLAIN_BYTES = 300_000  # beyond it a file is packed: browsers refuse links of more than two megabytes
MOST_BYTES = 1_400_000  # of a packed one, which is a third longer as text


def raw_section(raw: Mapping[str, bytes]) -> Section:
    """Every file of data, whole."""
    told = (
        "The figures above were made from these files and nothing else; `duet report DIR` makes this page "
        "from them again. Beside compare.json, in rows/, are the orders of `duet compare` as CSV, but not "
        "those of the searches for capacity."
    )
    files = [download(name, content) for name, content in raw.items()]
    return Section("data", "Raw data", [Says([told]), Downloads(files)])


def download(name: str, content: bytes) -> Download:
    """A file as a link; packed if it is long, without a link if it is too long even so."""
    size = f"{len(content) / 1000:,.0f} kB"
    if len(content) <= PLAIN_BYTES:
        return Download(name, name, _link("application/json", content), size)
    packed = gzip.compress(content, mtime=0)
    if len(packed) <= MOST_BYTES:
        return Download(name, f"{name}.gz", _link("application/gzip", packed), f"{size}, packed with gzip")
    return Download(name, name, "", f"{size}: too long for this page, it lies beside it")


def _link(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
