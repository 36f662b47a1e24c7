"""One figure, or a few of a kind, a file: which programs, which load, which bars.

Each file has FIGURES: the name that `--only` takes, and a function from a Plan to a Figure.
How turns are taken and judged is not here but in benchmarks/_turns.py and _compare.py.
"""
