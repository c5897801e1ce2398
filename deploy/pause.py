"""Leave hosts alone for a while.

pyinfra INVENTORY deploy/pause.py -y --data pause_until=2h --data pause_why='Ann looks at it'
"""

from pyinfra import host

from stackmend import pause, reporting

pause.held(
    name="Nothing is mended here until it is resumed",
    **pause.get_arguments(host.data.dict(), "only", "why", "until", "who"),  # type: ignore[no-untyped-call]
)

reporting.end_deploy(host)
