"""The decision: from what is desired and what is there to what will be done, and why. Pure.

``actions`` are the steps, one class for each verb. ``gates`` refuse a host that cannot be worked
on; ``foreign`` tells the project's own from what only looks like it; ``decide`` goes through the
project, ``leftovers`` through what was cut short, ``resources`` through what services are made of
and ``service`` through each of them, all noting what they find in one ``draft``; ``order`` puts the
steps in order; ``rollback`` leads back to what was proven; ``health`` classifies what comes up and
``record`` makes the record of it.
"""
