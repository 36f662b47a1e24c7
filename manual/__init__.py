"""What is made from commands and docstrings for people to read: completions, man page, site.

Nothing here is installed, and nothing in the package `fastecho` may import from here. setup.py
makes the completions and the man page when a wheel is built (shell_files.py), `make docs` the
site (site.py).
"""
