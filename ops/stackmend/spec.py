"""The spec of a host: the one mapping ``host.data.stack``."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from stackmend import controller_files
from stackmend.access.keys import read_public_keys
from stackmend.access.spec import AccessPolicy
from stackmend.compose.source import load, read_services
from stackmend.compose.spec import ComposeSpec, GitSource
from stackmend.connectivity.spec import ConnectivityPolicy
from stackmend.controller_files import MAXIMUM_TEXT, Unreadable
from stackmend.engine.spec import EnginePolicy
from stackmend.fleet.spec import ReconcilePolicy
from stackmend.models.spec import ModelsPolicy, record_path
from stackmend.ports.spec import PortsPolicy
from stackmend.problems import Problem, list_problems, show
from stackmend.raw import NAME_MAX, LocalPath, RawProblem, check_ping, copy_plain
from stackmend.resolver.spec import ResolverPolicy
from stackmend.schedule.spec import TimerSpec
from stackmend.worker.spec import WorkerPolicy

#: What pyinfra takes from a host's data to reach it by SSH, but for what hardly anybody sets.
_LOGIN = (
    *("ssh_hostname", "ssh_port", "ssh_user", "ssh_password", "ssh_key", "ssh_key_password"),
    *("ssh_config_file", "ssh_known_hosts_file", "ssh_strict_host_key_checking"),
)


class SpecError(ValueError):
    """The settings are wrong; one problem a line, each with the field's full path."""


def _check_metrics(value: Path) -> Path:
    if value.suffix != ".prom":
        raise ValueError("must end with .prom: the node exporter reads no other file")
    return value


class Report(BaseModel):
    """Where the record of a run is written.

    :param directory: on the controller; ``var/reports`` below the working directory by default.
    :param metrics: a file on the controller whose name ends with ``.prom``, in a directory that is
        there: for the textfile collector of Prometheus' node exporter; none is written by default.
    :param notify: whom to tell of a change, as addresses of
        `Apprise <https://github.com/caronc/apprise/wiki>`_: at most 20. They are secret.
    :param ping: the address of a dead man's switch in the protocol of healthchecks.io, which hears
        how each run ended. It is secret.

    Example::

        report = {
            "metrics": "/var/lib/prometheus/node-exporter/stackmend.prom",
            "notify": ["mailtos://user:password@example.com"],
            "ping": "https://hc-ping.com/00000000-0000-4000-8000-000000000000",
        }
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: LocalPath | None = None
    metrics: Annotated[LocalPath, AfterValidator(_check_metrics)] | None = None
    notify: tuple[SecretStr, ...] = Field(default=(), max_length=20)
    ping: Annotated[SecretStr, AfterValidator(check_ping)] | None = None


class Machine(BaseModel):
    """What is desired of a host before it carries a stack. A section that is absent is not managed.

    :param access: how the host is reached, and by whom; what ``deploy/bootstrap.py`` begins with.
    :param engine: the container engine that the host is to have.
    :param resolver: the DNS servers that the host is to ask, and its caches.
    :param reconcile: how a run treats the hosts that it changes, and each other run there.
    :param schedule: when ``stackmend reconcile`` is run by itself, and where; see
        ``docs/schedule.md``.
    :param report: where the record of a run is written.

    Example, in ``group_data/all.py``::

        stack = {"access": {"user": "ops", "public_keys": "~/.ssh/id_ed25519.pub"}, "engine": {}}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    access: AccessPolicy | None = None
    engine: EnginePolicy | None = None
    resolver: ResolverPolicy | None = None
    reconcile: ReconcilePolicy = ReconcilePolicy()
    schedule: TimerSpec | None = None
    report: Report = Report()


class Stack(Machine, ComposeSpec):
    """Everything desired of one host. A section that is absent is not managed.

    The Compose project's own settings stand at the top level, as :class:`ComposeSpec` has them.

    :param access: how the host is reached, and by whom; what ``deploy/bootstrap.py`` begins with.
    :param engine: the container engine that the host is to have.
    :param resolver: the DNS servers that the host is to ask, and its caches.
    :param ports: what may be done about a port that the stack needs and something else holds.
    :param models: the models that the stack's model server is to have.
    :param connectivity: which endpoints outside are looked at before anything is pulled.
    :param worker: what the worker and its model server are held to.
    :param incidents: Python files of this machine with incidents of your own, which
        ``deploy/doctor.py`` looks for as well; see ``docs/doctor.md``.
    :param reconcile: how a run treats the hosts that it changes, and each other run there.
    :param schedule: when ``stackmend reconcile`` is run by itself, and where; see
        ``docs/schedule.md``.
    :param report: where the record of a run is written.

    Example, in ``group_data/all.py``::

        stack = {"project": "ai", "source": "deploy/stacks/ai", "directory": "/opt/ai"}
    """

    ports: PortsPolicy | None = None
    models: ModelsPolicy | None = None
    connectivity: ConnectivityPolicy | None = None
    worker: WorkerPolicy | None = None
    incidents: tuple[LocalPath, ...] = Field(default=(), max_length=20)

    def list_named_services(self) -> list[tuple[str, str]]:
        """The settings that name a service of the project: the field, and the service.

        The one that a legacy worker is moved to need not be in the project's files.
        """
        named = super().list_named_services()
        if self.models is not None and self.models.endpoint is None:
            named.append(("models.service", self.models.service))
        if self.worker is None:
            return named
        named += [(f"worker.{field}", name) for field, name in self.worker.list_named_services()]
        added = self.worker.engine.target if self.worker.engine else None
        return [
            (field, name) for field, name in named if name != added or field.startswith("checks[")
        ]


#: What a host may have before it has a project.
_SECTIONS = frozenset({"access", "engine", "resolver", "schedule"})


def check(data: Mapping[str, Any]) -> Stack | None:
    """The validated settings in a host's data; ``None`` where it has no project.

    :param data: the host's data, as ``host.data.dict()`` gives it.
    :raises SpecError: naming each wrong field, and what would be right.
    """
    found = parse_machine(data)
    return found if isinstance(found, Stack) else None


def parse_machine(data: Mapping[str, Any]) -> Stack | Machine | None:
    """The same, also where a host has ``access``, ``engine``, ``resolver`` or ``schedule`` alone.

    :param data: the host's data, as ``host.data.dict()`` gives it.
    :raises SpecError: naming each wrong field, and what would be right.
    """
    raw = data.get("stack")
    if raw is None:
        return None
    try:
        # Its type, and not what it says of its class: the raw value may be anything.
        found = raw if issubclass(type(raw), Machine) else _validate(copy_plain(raw, "stack"))
        _read_files(found)
    except ValidationError as error:
        raise SpecError("\n".join(map(_complete, _list_problems(error, raw)))) from None
    except RawProblem as error:
        raise SpecError(str(error)) from None
    except Problem as error:
        raise SpecError(f"stack.{error}") from None
    return cast("Stack | Machine", found)


def _validate(raw: Any) -> Stack | Machine:
    return _choose_model(raw).model_validate(raw)


def _choose_model(raw: Any) -> type[Stack | Machine]:
    is_machine = isinstance(raw, dict) and raw and set(raw) <= {*_SECTIONS, "reconcile", "report"}
    return Machine if is_machine else Stack


def _list_problems(error: ValidationError, raw: Any) -> Iterator[str]:
    raw = copy_plain(raw, "stack")
    return list_problems(error, "stack", model=_choose_model(raw), raw=raw)


def _read_files(found: Machine) -> None:
    """Read, or check that it can be read, each file of this machine that the settings name.

    :raises Problem: naming the first that cannot.
    """
    if found.access is not None:
        read_public_keys(found.access.public_keys, "access.public_keys")
    if (metrics := found.report.metrics) is not None:
        parent = controller_files.expand(metrics).parent
        if not parent.is_dir():
            raise Problem(f"report.metrics: there is no directory {show(str(parent))}; make it")
    _check_targets(found.report)
    if found.schedule is not None and found.schedule.notify and not found.report.notify:
        raise Problem(
            'schedule.notify: there is nobody to notify: name them in "report": {"notify": [...]}, '
            "or remove it"
        )
    for field, path in _list_files(found):
        try:
            if path is not None:
                _read_file(field, controller_files.expand(path))
        except Unreadable as error:
            raise Problem(f"{field}: {show(str(path))} {error}") from None
    if isinstance(found, Stack):
        if found.incidents:
            from stackmend.incidents import custom

            custom.load(found.incidents)
        if not isinstance(found.source, GitSource):
            source = load(found)
            if found.worker is not None and found.worker.engine is not None:
                problem = found.worker.find_contradiction(read_services(source))
                if problem:
                    raise Problem(f"worker.{problem}")
        if found.models is not None:
            from stackmend.models import modelfiles

            modelfiles.check(found.models)
            name = record_path(found.project, found.models.service, found.models.endpoint)
            if len(name.rpartition("/")[2]) > NAME_MAX:
                raise Problem("project: too long for a file of its models; choose a shorter one")


def _check_targets(report: Report) -> None:
    for number, url in enumerate(report.notify):
        # Apprise costs more to import than all that a run needs which tells nobody.
        from stackmend.reporting import targets

        if reason := targets.check(url.get_secret_value()):
            raise Problem(f"report.notify[{number}]: {reason}")


def _list_files(found: Machine) -> Iterator[tuple[str, Path | None]]:
    """Each file of this machine that a section names: the field, and its path."""
    if found.access is not None:
        yield "access.known_hosts", found.access.known_hosts
    if found.engine is not None:
        for field in ("key", "toolkit_key"):
            raw = getattr(found.engine, field)
            yield f"engine.{field}", Path(raw) if raw and "://" not in raw else None


def _read_file(field: str, path: Path) -> None:
    if field == "access.known_hosts":
        # One that is not there yet is made where the first key is trusted.
        if controller_files.is_there(path):
            controller_files.read_text(path)
        return
    from stackmend.engine import openpgp

    data = controller_files.read(path, MAXIMUM_TEXT)
    try:
        openpgp.find_fingerprints(data)
    except ValueError as error:
        raise Problem(f"{field}: {show(str(path))} is not a repository's key: {error}") from None


def _check_login(data: Mapping[str, Any]) -> None:
    """Check what says how a host is reached, which pyinfra reads as the host is connected to.

    Keys that it does not know are a user's own, unless they are nearly one that it does.
    """
    for key, value in data.items():
        if key not in _LOGIN:
            alike = key.startswith("ssh") and isinstance(value, str | int)
            meant = get_close_matches(key, _LOGIN, 1, 0.8) if alike else []
            if meant and meant[0] not in data:
                raise SpecError(f"{show(key)}: unknown key (did you mean {meant[0]}?)")
        elif value is not None and key == "ssh_port":
            if type(value) is not int or value not in range(1, 65536):
                raise SpecError(f"{key}: must be a whole number from 1 to 65535")
        elif not isinstance(value, str | None):
            raise SpecError(f"{key}: must be text")


def check_settings(_host: str, data: Mapping[str, Any]) -> None:
    """Check one host's settings before any host is contacted.

    :raises SpecError: as :func:`check` does.
    """
    machine = parse_machine(data)
    if machine is None:
        return
    _check_login(data)
    if (only := data.get("doctor_only")) is not None:
        _check_only(only, machine)
    key = data.get("ssh_key")
    if key is None:
        return
    try:
        found = controller_files.is_there(controller_files.expand(Path(key)))
    except Unreadable as error:
        raise SpecError(f"ssh_key: {show(key)} {error}") from None
    if not found:
        raise SpecError(f"ssh_key: {show(key)} is no file of this machine")


def _check_only(only: object, found: Machine) -> None:
    from stackmend.incidents import custom, selection
    from stackmend.incidents.catalogue import list_incidents

    own = found.incidents if isinstance(found, Stack) else ()
    try:
        selection.parse(only, list_incidents(custom.load(own)))
    except Problem as error:
        raise SpecError(str(error)) from None


def _complete(problem: str) -> str:
    return problem + (" or a Stack" if problem == "stack: must be a mapping" else "")
