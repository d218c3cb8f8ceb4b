"""The version, in one place: setup.py reads this file and the package re-exports it."""

__version__ = "0.2.0"
