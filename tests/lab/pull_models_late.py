"""A deploy file of these tests: one host is at work on something else while others pull models."""

from pyinfra import host
from pyinfra.operations import server
from pyinfra_cli import cli  # type: ignore[import-untyped]

from stackmend import models
from stackmend.fleet import pace
from stackmend.models.spec import ModelsPolicy

# As the command does: no host waits for the others between two operations.
cli.run_ops = pace.run_ops

data = host.data.dict()  # type: ignore[no-untyped-call]
arguments = {key: value for key, value in data["pulled"].items() if key != "project"}
policy = ModelsPolicy.model_validate(arguments)
project = data["pulled"]["project"]

models.prefetch(policy, project)
if host.name == data["late"]:
    server.shell(
        name="Something else is changed until the test lets it end",
        commands=["n=0; until [ -e /tmp/goes-on ]; do n=$((n+1)); [ $n -lt 900 ]; sleep 0.1; done"],
    )
models.pulled(name="The models are there", project=project, **models.get_arguments(policy))
