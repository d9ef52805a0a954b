"""A simulated power cut: every write and fsync of a database is recorded, and the disk rebuilt as of any cut.

`record.c` is loaded into the real process (LD_PRELOAD: Linux, a C compiler, no root); `disk.py` rebuilds the
files from what had been synced, losing what had not. It refuses to guess: what is not recorded is not there.
"""
