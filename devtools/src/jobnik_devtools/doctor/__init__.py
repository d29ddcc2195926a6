"""`make doctor` of a rendered worker: finds problems in a project, and says how to fix them.

`python -m jobnik_devtools.doctor PACKAGE` checks the project in the current folder and changes nothing. Each check is a
separate module that yields findings. A check that cannot be completed says why, and the others still run.
"""
