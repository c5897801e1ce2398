"""What keeps a plan from being executed although it could be: pauses and limits.

They lie on the host itself, so that each controller and the host's own timer respect them. The loop
of every room (:mod:`stackmend.reconcile`) asks for them with all else that it reads of a host;
``stackmend.pause`` has the operations.
"""
