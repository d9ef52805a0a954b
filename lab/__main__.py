"""`python -m lab` is `duet`, for a source tree that is not installed."""

from lab.cli import app

if __name__ == "__main__":
    app(prog_name="duet")
