"""The version of fastecho, and nothing else: every other place takes it from here."""

__version__ = "0.1.0"
