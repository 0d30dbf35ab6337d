"""The version of the package, as records and the installer know it."""

__version__ = "0.1.0"
