"""Echo servers to compare fastecho with, one program a file, each readable on its own.

Every one takes `--ready-fd N`, binds 127.0.0.1 port 0 and writes "127.0.0.1:PORT" and a newline
to N once it listens. What they share of that is in _listen.py; what measures them is not here.
"""
