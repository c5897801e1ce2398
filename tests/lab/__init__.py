"""Real hosts on one machine: systemd, sshd and an engine of their own, in containers.

Everything here looks at the hosts from outside (``docker exec`` on the outer engine, raw ``docker``
inside) and never through the code under test.
"""
