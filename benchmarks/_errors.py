"""The two ways in which a command of benchmarks/ fails; each text is one sentence."""


class MeasurementError(Exception):
    """One figure could not be had: a server did not start, did not obey, or did not echo."""


class SetupError(Exception):
    """Nothing can be measured here: the machine or the installation lacks something."""
