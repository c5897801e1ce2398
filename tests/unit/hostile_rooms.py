"""The rooms whose probes are fuzzed."""

from __future__ import annotations

from tests.unit.hostile_acceleration import ACCELERATION
from tests.unit.hostile_benchmark import BENCHMARK
from tests.unit.hostile_checks import CHECKS
from tests.unit.hostile_compose import COMPOSE, FREE, RESOLVE, SURROUNDINGS
from tests.unit.hostile_connectivity import CONNECTIVITY
from tests.unit.hostile_incidents import SUPPORT, SYMPTOMS
from tests.unit.hostile_machine import ACCELERATORS, ACCESS, ENGINE, ESSENTIALS
from tests.unit.hostile_models import INSIDE, MODELS
from tests.unit.hostile_ports import PORTS
from tests.unit.hostile_resolver import ANSWERS, CACHES, RESOLVER
from tests.unit.hostile_restraint import RESTRAINT
from tests.unit.hostile_schedule import SCHEDULE
from tests.unit.hostile_worker import WORKER

ROOMS = (
    COMPOSE,
    RESOLVE,
    FREE,
    SURROUNDINGS,
    ACCELERATORS,
    ACCESS,
    ESSENTIALS,
    ENGINE,
    MODELS,
    INSIDE,
    PORTS,
    CHECKS,
    CONNECTIVITY,
    ACCELERATION,
    RESOLVER,
    ANSWERS,
    CACHES,
    BENCHMARK,
    WORKER,
    SYMPTOMS,
    SUPPORT,
    SCHEDULE,
    RESTRAINT,
)
