"""The version, apart from the package's lazy names so that any module may read it."""

__version__ = "0.1.0"
