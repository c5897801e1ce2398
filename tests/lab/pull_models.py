"""A deploy file of these tests: ``models.pulled`` as the inventory says."""

from pyinfra import host

from ops import models

given = host.data.dict()  # type: ignore[no-untyped-call]

models.pulled(name="The models are there, whole and current", **given["pulled"])
