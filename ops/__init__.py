"""stackmend: declarative pyinfra operations that bring an AI stack to health and keep it there.

Each noun is a room with the same doors: ``spec`` (what is wanted), ``state`` (what is there),
``facts`` (probe text to state), ``plan`` (the decision, pure), ``commands`` (action to command),
and the operations themselves in the package's ``__init__``.
"""
