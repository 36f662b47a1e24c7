"""`native`: the compiled core, which is no file of this folder: fastecho/_core.pyx.

The idea: that of `epoll`, in compiled code that does not hold the GIL, with a loop on each thread.
What Python does in the other models for each message (find the connection, make a bytes object,
call two methods) is not done at all; what is left is the kernel's work.

Its cost: that it must be compiled.

Where it breaks: it is what the models before it taught, with limits, timeouts, exact frames and
drains added; it breaks where the kernel does.
"""

from __future__ import annotations

from .options import Model

MODEL = Model(
    "native",
    idea="epoll in compiled code, without Python on the way of the bytes; a loop on each thread",
    good_for="all but learning: exact frames, limits, drains, all cores",
    breaks="where it is not compiled; serve then takes epoll or select",
)
