"""The probes, one a file: whatever module lies here is one, and nothing else has to name it.

A probe has `run(path)`, which returns a Finding, and these constants:

    TITLE     what it looks at, in a few words
    GROUP     reach, exact, close, flow, tcp or server: where it stands in the list
    QUICK     whether the quick profile has it
    PHASE     "first": the others wait for it, and are not testable if its failure leaves no hope;
              "alone": it times something; "beside": it mostly waits, so several run at a time;
              "bulk": it moves much
    NEEDS     what it cannot do without: "tcp", "direct", "probes"
    PASSED    one sentence: what it means if it passes
    FAILED    one sentence: what it means if it fails, and what usually causes that

Its name is the file's, with hyphens. What it may use: fastecho.check and the standard library.
"""
