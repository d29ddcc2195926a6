"""`make doctor` of a generated worker: says what is wrong with a project, and what to do about it.

`python -m jobnik_devtools.doctor PACKAGE` looks at the project in the working directory and changes nothing there. Each
check stands alone in a module of its own and yields findings; one that cannot be made says why, and the others go on.
"""
