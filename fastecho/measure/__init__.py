"""Measuring echo servers: probes, loads, their results.

Each module holds one noun and is imported where it is used; importing the package costs nothing.
"""
