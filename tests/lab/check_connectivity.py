"""A deploy file of the tests: ``connectivity.checked`` as the data says."""

from pyinfra import host

from stackmend import connectivity

connectivity.checked(name="The outside is looked at", **host.data.look)
