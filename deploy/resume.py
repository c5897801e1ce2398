"""Have hosts mended again that were paused: ``pyinfra INVENTORY deploy/resume.py -y``."""

from pyinfra import host

from stackmend import pause, reporting

pause.lifted(
    name="What was paused is mended again",
    **pause.get_arguments(host.data.dict(), "only"),  # type: ignore[no-untyped-call]
)

reporting.end_deploy(host)
