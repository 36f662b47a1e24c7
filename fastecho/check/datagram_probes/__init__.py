"""The probes of a path for datagrams (UDP), one a file, as those of streams are (../probes).

GROUP is reach, exact or path here, PHASE "first", "alone" or "beside", and NEEDS is empty. They run
one after the other, but those "beside" a pause: servers with guards answer a source only so often.
"""
