"""Handover: a running server passes its listeners on to the one that replaces it.

The old one listens on a Unix socket; the new one connects there, and they talk (wire.py):

    new: hello, with its protocol and process
    old: how many listeners there are; then each, with its descriptor
    new: serving, with the numbers of those that it has taken; it accepts from them by now
    old: left; it does not accept from these any more, and has closed them

Until `serving` has come the old one serves as if nothing had happened, and goes on when the new one
fails, falls silent or is killed. From then on it drains. Until `left` has come, or the end of the
connection (the old one is no more), the new one treats the listeners as shared; then they are its
own. So at each moment somebody accepts, and nobody ever shuts a listener down that both have.
"""
