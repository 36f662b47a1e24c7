"""Changes nothing: `check` must find nothing."""

from __future__ import annotations

from boxes.relay import Relay, main

if __name__ == "__main__":
    main(Relay, __doc__)
