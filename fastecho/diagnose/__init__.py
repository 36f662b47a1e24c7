"""Why do connections time out? Both kernel queues of any listener, limits, verdicts.

It looks at the kernel only: nothing here needs the compiled core, a fastecho server or root.
"""
