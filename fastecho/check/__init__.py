"""Is the path to an echo server honest? Probes, each with a verdict and its evidence.

It checks any echo server: nothing here knows ours, and nothing needs the compiled core.
"""
