"""What a kernel of `make lab` begins with, so that a cell that is run too early says what to run first."""
from contextlib import suppress

with suppress(ImportError):  # a kernel of another environment
    import calib_nb  # noqa: F401
