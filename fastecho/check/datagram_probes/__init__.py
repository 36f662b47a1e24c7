"""The probes of a path for datagrams (UDP), one a file, as those of streams are (../probes).

GROUP is reach, exact or path here, PHASE "first", "alone" or "beside", and NEEDS is empty. Those
that send much are "alone": servers with guards answer a source only so often. "beside" others run
those that mostly wait, for the end of a pause or for what does not come.
"""
