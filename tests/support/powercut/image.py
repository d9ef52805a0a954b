"""A disk in a file, with a file system of its own: a copy of the file is what a power cut would have left.

What a program has written and not synced is in the page cache of the mounted file system, and not in the file
below it; whoever mounts a copy finds what the disk had, as after a cut. Needs root, and a loop device.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE_BYTES = 128 * 1024 * 1024
COMMAND_S = 30.0


class ImageError(Exception):
    """A command that makes, mounts or unmounts a disk has failed."""


def why_no_image(folder: Path) -> str | None:
    """Why no disk can be made below this folder; None if one can."""
    try:
        with mounted(make_image(folder / "probe.img"), folder / "probe"):
            pass
    except ImageError as error:
        return f"a disk in a file takes root, mkfs.ext4 and a loop device: {error}"
    finally:
        (folder / "probe.img").unlink(missing_ok=True)
    return None


def make_image(image: Path) -> Path:
    """An empty ext4 disk."""
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
    return image


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """The disk, mounted at a folder that is made; after a cut its journal is replayed first."""
    at.mkdir(parents=True, exist_ok=True)
    # Without a commit of its own accord meanwhile: what nobody synced is not on the disk.
    _run("mount", "-o", "loop,commit=300", str(image), str(at))
    try:
        yield at
    finally:
        _run("umount", str(at))


def cut(image: Path, copy: Path) -> Path:
    """What the disk would hold if the power failed now."""
    shutil.copyfile(image, copy)
    return copy


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise ImageError(f"{' '.join(command[:1])}: {done.stderr.strip() or done.returncode}")
