"""How fast the worker of each host is: ``pyinfra INVENTORY deploy/benchmark.py``."""

from pyinfra import host

from stackmend import reporting, worker
from stackmend.spec import check

stack = check(host.data.dict())  # type: ignore[no-untyped-call]

if stack is not None and stack.worker is not None and stack.worker.benchmark is not None:
    worker.benchmarked(
        name=f"The worker of {stack.project} is measured, and as fast as it has to be",
        project=stack.project,
        directory=stack.directory,
        **worker.get_benchmark_arguments(stack.worker.benchmark),
    )

reporting.end_deploy(host, applies="worker.benchmark")
