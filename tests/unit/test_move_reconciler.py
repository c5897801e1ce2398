"""What a move does to a host, step by step, where something of it fails."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pyinfra.api import StringCommand

from stackmend import compose, connection
from stackmend.compose.spec import ComposeSpec
from stackmend.errors import StepError
from stackmend.fleet import hosts as fleet
from stackmend.reporting import announce
from stackmend.worker import pictures
from stackmend.worker.benchmark import conditions, occupation, progress, store, turns
from stackmend.worker.benchmark.state import Conditions
from stackmend.worker.move import client, reconciler
from stackmend.worker.move import measuring as measuring_both
from stackmend.worker.move.observing import ProjectObserver
from stackmend.worker.move.plan import Measure, begin, make_layer, plan
from stackmend.worker.move.reconciler import MoveReconciler
from stackmend.worker.move.spec import ATTEMPTS, MovePolicy
from stackmend.worker.move.state import Answer, HostMove, Legacy, MoveRecord, Runner
from stackmend.worker.showing import Benchmarks
from tests.unit import benchmark_results
from tests.unit.test_move_facts import words
from tests.unit.test_move_plan import compared, move, runner

SOURCE = "tests/unit"


class World(MoveReconciler):
    """A host that is none: what is done to it is a list of words.

    ``dead`` are services that do not answer, ``broken`` the first words of commands that fail, and
    ``unhealthy`` the stages to which the project does not come.
    """

    def __init__(self, record: MoveRecord, **policy: Any) -> None:
        spec = ComposeSpec.model_validate(
            {"project": "ai", "source": SOURCE, "directory": "/opt/ai", "stability": 0}
        )
        desired = MovePolicy.model_validate(policy)
        host: Any = SimpleNamespace(name="h", state=None)
        report: Any = SimpleNamespace(add_measure=lambda *_: None)
        self.paths: list[Path] = []
        super().__init__(host, desired, spec, report, self.paths.append)
        self.record = record
        self.layer = make_layer(record.move, record.stage)
        self.done: list[str] = []
        self.errors: list[str] = []
        self.plans: list[Any] = []
        self.dead: set[str] = set()
        self.broken: set[str] = set()
        self.unhealthy: set[str] = set()
        self.returning = False
        self.returned: list[str] = []
        self.measured: Any = None
        self.printed = {"missing": "0\n"}
        self.runners = (
            runner(service="llm", addresses=("llm",)),
            runner(service="ollama", image="ollama/ollama", id="b" * 64, addresses=("ollama",)),
            runner(service="api", image="team/api", id="c" * 64, addresses=("api",)),
        )

    def _read(self) -> HostMove:
        stopped = {"llm"} if self.done and "stopped" in self.done else set()
        left: tuple[Runner, ...] = tuple(
            each for each in self.runners if each.service not in stopped
        )
        return HostMove(runners=left, layer=self.layer, record=self.record)

    def run(self, command: StringCommand, failure: str, **more: Any) -> Any:
        name, *arguments = words(command)
        if name == "keep":
            self.record = MoveRecord.model_validate_json(more["stdin"])
            self.done.append(self.record.stage)
            return None
        if name in ("missing", "callers"):
            return connection.Result(0, self.printed.get(name, "").encode(), b"")
        self.done.append(" ".join([name, *arguments]))
        if name in self.broken:
            raise StepError(f"{failure}: broken")
        if name == "start" and "stopped" in self.done:
            self.done.remove("stopped")
        if name == "retire":
            self.done.append("stopped")
        return connection.Result(0, b"", b"")

    @contextlib.contextmanager
    def step(self, *actions: Any) -> Iterator[None]:
        yield

    @contextlib.contextmanager
    def allow_return(self) -> Iterator[None]:
        self.returning = True
        yield
        self.returning = False

    def report_error(self, error: Any) -> None:
        self.errors.append(str(error))

    def report_plan(self, plan: Any) -> None:
        self.plans.append(plan)

    def _measure_both(self, move: Any, action: Any) -> Any:
        if isinstance(self.measured, Exception):
            raise self.measured
        return self.measured

    def go(self, lease: Any = None) -> bool:
        state = self._read()
        lease = lease or SimpleNamespace(check=lambda: None)
        return self.execute(plan(self.spec, state), state, lease)


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that tests make are what the project and the servers are asked of."""
    made: list[World] = []
    init = World.__init__

    def record(self: World, *args: Any, **more: Any) -> None:
        init(self, *args, **more)
        made.append(self)

    def apply(host: object, spec: ComposeSpec, content: str, report: object) -> bool:
        own = made[-1]
        for stage in ("retired", "repointed", "added"):
            if content == make_layer(own.record.move, stage):  # type: ignore[arg-type]
                break
        else:
            stage = "none"
        checks = "".join(f" +{check.name}" for check in spec.checks)
        own.done.append(f"apply {stage}{checks}")
        if own.returning:
            own.returned.append(own.done[-1])
        if stage in own.unhealthy:
            return False
        own.layer = content
        return True

    def check(host: object, address: str, port: int, model: str, **_: object) -> str:
        return "connection refused" if address in made[-1].dead else ""

    monkeypatch.setattr(World, "__init__", record)
    monkeypatch.setattr(compose, "apply_layer", apply)
    monkeypatch.setattr(client, "check_answer", check)
    monkeypatch.setattr(reconciler, "ANSWERING", 0.0)
    monkeypatch.setattr(reconciler, "PAUSE", 0.0)


def record(stage: str, **more: Any) -> MoveRecord:
    return begin(move(), "k", "ai").model_copy(update={"stage": stage, **more})


def test_clients_do_not_go_back_to_a_dead_one() -> None:
    own = World(record("returning", reason="slow"))
    own.layer = make_layer(move(), "repointed")
    own.dead = {"llm"}
    with pytest.raises(StepError, match="api stays with ollama, and both are kept") as caught:
        own.go()
    assert caught.value.log == ("bring llm to answer, then run again",)
    assert own.done == ["start ai llm"]


def test_clients_go_back_to_one_that_answers() -> None:
    own = World(record("returning", reason="slow"))
    own.layer = make_layer(move(), "repointed")
    assert own.go()
    assert own.done == [
        "start ai llm",
        "apply added",
        "apply none",
        "unvolume ai stackmend-ollama",
        "returned",
    ]
    assert own.returned == ["apply added", "apply none"]


def test_a_dead_one_is_no_reason_to_go_back() -> None:
    own = World(record("repointed"))
    own.measured = StepError("the legacy worker cannot be measured")
    own.dead = {"llm"}
    assert own.go()
    assert own.record.stage == "retired"
    assert "nothing to go back to" in own.record.reason


CONFIRMED = ["apply retired", "retire ai llm no", "stopped"]


def test_it_is_retired_once_all_holds_without_it() -> None:
    own = World(record("confirmed"))
    assert own.go()
    assert own.done == [*CONFIRMED, "apply retired +api reaches ollama", "retired"]


def test_it_is_removed_once_all_holds_without_it() -> None:
    own = World(record("confirmed"), keep_legacy=False)
    assert own.go()
    again = "apply retired +api reaches ollama"
    assert own.done == [*CONFIRMED, again, "retire ai llm yes", "stopped", "retired"]


def test_it_is_started_again_where_the_new_one_does_not_answer_without_it() -> None:
    own = World(record("confirmed"))
    own.dead = {"ollama"}
    assert not own.go()
    assert own.done[:3] == ["apply retired", "retire ai llm no", "start ai llm"]
    assert own.done[-1] == "returned"
    assert "retired" not in own.done
    assert "ollama does not answer as tiny" in own.errors[0]


def test_it_does_not_stop_although_its_command_says_so() -> None:
    own = World(record("confirmed"))
    own.runners = (*own.runners, runner(service="llm", id="d" * 64))
    read = World._read
    own._read = lambda: read(own).model_copy(update={"runners": own.runners})  # type: ignore[method-assign]
    assert not own.go()
    assert "runs although all were stopped" in own.errors[0]


def test_a_volume_that_stays_is_found() -> None:
    own = World(record("returning", reason="slow"))
    own.broken = {"unvolume"}
    assert own.go()
    assert own.record.stage == "returned"
    (left,) = own.plans[0].findings
    assert left.subject == "ai_stackmend-ollama"
    assert "docker volume rm" in left.remedy


def test_a_lost_connection_fails_no_move() -> None:
    own = World(record("measured"))

    def lose(*_: object) -> None:
        raise connection.ConnectionLost("h", "client", "gone")

    own._switch_clients = lose  # type: ignore[method-assign]
    with pytest.raises(connection.ConnectionLost):
        own.go()
    assert own.done == []
    assert own.record.failures == 0


def test_a_command_that_takes_too_long_fails_it() -> None:
    own = World(record("measured"))

    def hang(*_: object) -> None:
        raise connection.CommandTimeout("h", "copying", "timed out")

    own._switch_clients = hang  # type: ignore[method-assign]
    assert not own.go()
    assert (own.record.stage, own.record.failures) == ("returned", 1)


def test_nothing_is_put_back_without_the_lock() -> None:
    own = World(record("measured"))
    checks = iter([None, connection.LeaseHeld("h", "checking", "another")])

    def check() -> None:
        if error := next(checks):
            raise error

    def fail(*_: object) -> None:
        raise StepError("no")

    own._switch_clients = fail  # type: ignore[method-assign]
    with pytest.raises(connection.LeaseHeld):
        own.go(SimpleNamespace(check=check))
    assert own.done == ["returning"]


class Ollama:
    """The API of one that the project has, as far as a move asks it."""

    def __init__(self, own: World, server: Any) -> None:
        self._own = own

    def create(self, name: Any, request: dict[str, Any], size: int) -> None:
        self._own.done.append(f"create {name} {request}")

    def remove(self, name: Any) -> None:
        self._own.done.append(f"remove {name}")


def importing(monkeypatch: pytest.MonkeyPatch, *served: str, **model: Any) -> World:
    """A move to an Ollama of the project that has some models already."""
    own = move()
    models = (own.models[0].model_copy(update=model),)
    changed = own.model_copy(update={"added": {}, "base": {}, "volume": "", "models": models})
    made = World(record("added", move=changed))
    monkeypatch.setattr(reconciler, "Client", Ollama)
    monkeypatch.setattr(client, "list_models", lambda *_: served)
    copied = connection.Result(0, f"sha256:{'a' * 64}".encode(), b"")
    monkeypatch.setattr(connection, "run", lambda *_, **__: copied)
    made.host = made  # type: ignore[assignment]
    made.measured = StepError("it does not answer")
    return made


def test_models_of_others_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    own = importing(monkeypatch, "tiny:latest")
    assert not own.go()
    assert own.done == ["returning", "apply added", "returned"]
    assert "has a model tiny:latest already" in own.errors[0]


def test_models_that_were_made_are_removed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    own = importing(monkeypatch, "other:latest", context=8192)
    assert not own.go()
    assert own.done[0] == "added"
    files = {"tiny.gguf": f"sha256:{'a' * 64}"}
    request = {"files": files, "parameters": {"num_ctx": 8192}}
    assert own.done[1] == f"create tiny:latest {request}"
    assert own.done[2:] == [
        "imported",
        "returning",
        "remove tiny:latest",
        "apply added",
        "returned",
    ]
    assert own.record.created == ("tiny:latest",)


def test_one_that_somebody_calls_is_not_stopped() -> None:
    own = World(record("confirmed"))
    own.printed["callers"] = "050012AC:9C40\n"
    assert not own.go()
    assert own.done == []
    assert own.record.stage == "confirmed"
    assert "172.18.0.5 calls it still, and both stay up" in own.errors[0]


def test_who_comes_while_the_project_is_brought_there_is_not_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = World(record("confirmed"))
    apply = compose.apply_layer

    def call(*arguments: Any) -> bool:
        own.printed["callers"] = "050012AC:9C40\n"
        return apply(*arguments)

    monkeypatch.setattr(compose, "apply_layer", call)
    assert not own.go()
    assert (own.done, own.record.stage) == (["apply retired"], "confirmed")
    assert "172.18.0.5 calls it still, and both stay up" in own.errors[0]
    monkeypatch.setattr(compose, "apply_layer", apply)
    own.printed["callers"] = ""
    assert own.go()
    assert own.record.stage == "retired"


def test_callers_that_may_be_lost_are_not_asked_for() -> None:
    own = World(record("confirmed"), allow=("published",))
    own.printed["callers"] = "050012AC:9C40\n"
    assert own.go()
    assert own.record.stage == "retired"


def test_clients_that_ask_for_another_model_go_back() -> None:
    own = World(record("confirmed"))
    own.printed["missing"] = "3\n"
    own.layer = make_layer(move(), "repointed")
    assert not own.go()
    assert (own.record.stage, own.record.failed) == ("returned", True)
    assert "a model that it has not, 3 times" in own.errors[0]
    assert '"models": {"NAME"' in own.record.remedy
    assert "apply retired" not in own.done


def test_it_is_read_at_once_whether_clients_ask_for_another_model() -> None:
    own = World(record("measured"))
    own.printed["missing"] = "3\n"
    assert not own.go()
    assert own.done == [
        "apply repointed +api reaches ollama",
        "returning",
        "start ai llm",
        "apply added",
        "apply none",
        "unvolume ai stackmend-ollama",
        "returned",
    ]


@pytest.mark.parametrize(
    ("grace", "allow", "stage"),
    [(10.0, (), "returning"), (60.0, (), "measured"), (10.0, ("tasks",), "measured")],
)
def test_clients_end_their_tasks(grace: float, allow: tuple[str, ...], stage: str) -> None:
    changed = move().model_copy(update={"grace": {"api": grace}})
    own = World(record("imported", move=changed), allow=allow)
    units: list[str] = []
    own.report = SimpleNamespace(add_measure=lambda *each: units.append(each[2]))  # type: ignore[assignment]
    own.measured = SimpleNamespace(comparison=compared(3.0), slowest=30.0, at=1.7e9)
    action = Measure(subject="ollama", cause="", phase="before")
    found = own._measure(action, own.record)
    assert found.stage == stage
    assert found.at == 1.7e9
    assert units == ["tokens/s", "tokens/s"]
    assert ("api has 10 s to end" in found.reason) is (stage == "returning")


# A move that is over


def test_a_setting_that_changed_is_followed() -> None:
    own = World(record("retired"), settings={"mem_limit": "8g"})
    assert own.go()
    assert own.done == ["apply none +api reaches ollama", "retired"]
    assert own.record.move.added["mem_limit"] == "8g"
    assert yaml.safe_load(own.layer)["services"]["ollama"]["mem_limit"] == "8g"


def test_one_that_no_longer_answers_with_it_is_put_back() -> None:
    own = World(record("retired"), settings={"mem_limit": "1m"})
    own.dead = {"ollama"}
    with pytest.raises(StepError, match="ollama does not answer as tiny"):
        own.go()
    assert own.layer == make_layer(move(), "retired")
    assert "mem_limit" not in own.record.move.added
    assert own.record.stage == "retired"
    assert own.returned == ["apply retired"], "however long the run is at work by then"


def test_the_container_is_removed_once_it_is_no_longer_kept() -> None:
    own = World(record("retired"), keep_legacy=False)
    assert own.go()
    assert own.done == ["retire ai llm yes", "stopped", "retired"]
    assert own.record.removed


def test_a_move_under_way_is_taken_back_for_other_settings() -> None:
    own = World(record("measured"), target="other")
    assert not own.go()
    assert own.done == ["returning", "apply none", "unvolume ai stackmend-ollama", "returned"]
    assert (own.record.stage, own.record.key, own.record.failures) == ("returned", "", 0)
    assert "its settings changed since it was planned: target" in own.errors[0]


# Who is disturbed


@pytest.mark.parametrize("target", ["ollama", "absent"])
def test_both_are_asked_whether_they_compute(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    asked = []

    def read(host: object, spec: Any) -> str:
        asked.append((spec.target, spec.service_name, spec.server_port, spec.project))
        return "it has 1 requests of others" if spec.service_name == "llm" else ""

    monkeypatch.setattr(occupation, "read_busy", read)
    own = World(record("retired"), target=target)
    legacy = Legacy(runner=own.runners[0], engine="llama.cpp", evidence=())
    observer = ProjectObserver(own.host, own.spec, own.project)
    busy = observer._list_busy(own._read(), legacy)
    assert busy == {"llm": "it has 1 requests of others"}
    also = [("ollama", "ollama", 11434, "ai")] if target == "ollama" else []
    assert asked == [("openai", "llm", 8000, "ai"), *also]
    allowed = replace(observer, spec=MovePolicy(allow=("busy",)))
    assert allowed._list_busy(own._read(), legacy) == {}


@pytest.mark.parametrize("allow", [(), ("busy",)])
def test_one_that_was_not_asked_while_it_answers_is_refused(
    monkeypatch: pytest.MonkeyPatch, allow: tuple[str, ...]
) -> None:
    silence = "it is llama-cpp-python, and 1 connection of others to it last"
    asked: list[Any] = []

    def ask(host: object, spec: Any, address: str, port: int) -> Answer:
        asked.append((spec.target, spec.service_name, spec.allow, address, port))
        return Answer(address=address, port=port, serial=True, silence=silence)

    monkeypatch.setattr(client, "read_answer", ask)
    monkeypatch.setattr(occupation, "read_busy", lambda *_: "it computes")
    own = World(record("retired"), allow=allow)
    python = runner(image="abetlen/llama-cpp-python:latest")
    observer = ProjectObserver(own.host, own.spec, own.project)
    (answer,) = observer.ask(((python, 8000),)).values()
    assert asked == [("openai", "llm", allow, "172.18.0.2", 8000)]
    legacy = Legacy(runner=python, engine="llama-cpp-python", evidence=(), answer=answer)
    assert observer._list_busy(HostMove(), legacy) == {"llm": silence}


# How it is measured


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a measurement takes before it begins; it ends with what the host is short of."""
    taken: list[Any] = []

    def hold(host: object) -> Any:
        taken.append("locked")
        return SimpleNamespace(check=lambda: taken.append("checked"))

    @contextlib.contextmanager
    def turn(host: object, endpoint: Any, *, shared: bool) -> Iterator[None]:
        taken.append((endpoint.address, shared))
        yield

    def measure(*arguments: Any) -> Any:
        read = next(each for each in arguments if callable(each))
        taken.append(read()())
        raise StepError("it does not answer")

    monkeypatch.setattr(fleet, "hold", hold)
    monkeypatch.setattr(turns, "take_turn", turn)
    monkeypatch.setattr(measuring_both, "measure_both", measure)
    monkeypatch.setattr(conditions, "make_reader", lambda *_: lambda: lambda: Conditions())
    monkeypatch.setattr(progress, "display", lambda *_: contextlib.nullcontext(print))
    monkeypatch.setattr(announce, "show_line", lambda *_: None)
    return taken


MEASURE = Measure(subject="ollama", cause="", phase="before")


def test_both_are_measured_under_the_lock_and_in_the_turn_of_a_benchmark(
    measuring: list[Any],
) -> None:
    own = World(record("imported"))
    with pytest.raises(StepError, match="it does not answer"):
        MoveReconciler._measure_both(own, move(), MEASURE)
    assert measuring[:3] == ["locked", ("llm", False), "checked"]
    assert len(measuring) == 2 + 2 * ATTEMPTS


@pytest.mark.parametrize(("allow", "times"), [((), 1), (("memory",), ATTEMPTS)])
def test_a_host_that_runs_out_of_memory_is_measured_no_further(
    measuring: list[Any], monkeypatch: pytest.MonkeyPatch, allow: tuple[str, ...], times: int
) -> None:
    short = Conditions(oom_kills=1)
    monkeypatch.setattr(conditions, "make_reader", lambda *_: lambda: lambda: short)
    own = World(record("imported"), allow=allow)
    with pytest.raises(StepError) as caught:
        MoveReconciler._measure_both(own, move(), MEASURE)
    assert measuring.count("checked") == times
    assert ('"allow": ["memory"]' in str(caught.value)) is not bool(allow)
    assert isinstance(caught.value, conditions.Shortage) is not bool(allow)


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the records of this run lie, with its benchmarks beside them."""
    monkeypatch.setattr(store.reporting, "find_run", lambda _: object())
    monkeypatch.setattr(store.write, "find_directory", lambda _: tmp_path)
    return tmp_path


@pytest.fixture
def both(measuring: list[Any], monkeypatch: pytest.MonkeyPatch) -> measuring_both.Measured:
    """What a measurement of both comes to: the new one is five times as fast."""
    old, new = (
        benchmark_results.make_result(speed=speed).measurement.levels[:1] for speed in (0.2, 1.0)
    )
    found = measuring_both.Measured(compared(5.0), (compared(5.0),), old, new)
    monkeypatch.setattr(measuring_both, "measure_both", lambda *_: found)
    return found


@pytest.mark.usefixtures("both")
def test_what_was_measured_is_collected_and_drawn_at_the_end_of_the_run(
    reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = World(record("imported"))
    assert MoveReconciler._measure_both(own, move(), MEASURE).at > 0
    (path,) = own.paths
    assert path.parent == reports / "benchmarks"
    assert re.fullmatch(r"h\.[0-9a-f]{8}-move\.ollama-\d{8}T\d{6}Z\.json", path.name)
    result = pictures.read(path)
    assert result.baseline is not None
    assert result.baseline.fingerprint.engine == "llama.cpp"
    assert result.measurement.fingerprint.engine == "ollama"
    ending = Benchmarks()
    ending.add(path)
    ending.show(reports)
    page = reports / "benchmarks" / "benchmark.html"
    assert str(page) in capsys.readouterr().err
    text = page.read_text()
    assert "<svg" in text
    assert "llama.cpp" in text


@pytest.mark.usefixtures("both", "reports")
def test_a_move_that_goes_on_shows_what_a_run_before_measured() -> None:
    before = World(record("imported"))
    measured = MoveReconciler._measure_both(before, move(), MEASURE)
    own = World(record("confirmed", at=measured.at))
    assert own.go()
    assert own.record.stage == "retired"
    assert own.paths == before.paths != []
    # What another machine measured is not here.
    own = World(record("confirmed", at=measured.at - 60))
    assert own.go()
    assert own.paths == []
    # Settings that change later are no move.
    own = World(record("retired", at=measured.at), settings={"mem_limit": "8g"})
    assert own.go()
    assert own.paths == []


def test_a_measurement_of_another_run_fails_no_move() -> None:
    own = World(record("repointed"))
    own.measured = connection.LeaseHeld("h", "measuring", "another")
    with pytest.raises(connection.LeaseHeld):
        own.go()
    assert own.done == []
    assert own.record.failures == 0


@pytest.mark.parametrize("settings", [{}, {"ports": [1]}])
def test_what_compose_refuses_of_the_settings_has_a_remedy(settings: dict[str, Any]) -> None:
    own = World(record("planned"), settings=settings)
    own.unhealthy = {"added", "none"}
    with pytest.raises(StepError) as caught:
        own._apply(own.record.move, "added")
    assert [*caught.value.log] == [
        'correct "settings" in the section "engine" where Compose refuses them' for _ in settings
    ]


def test_files_that_cannot_be_asked_for_are_not_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(host: object, command: StringCommand, **_: object) -> connection.Result:
        asked.append(words(command))
        if len(asked) > 1:
            raise connection.CommandTimeout("h", "asking", "timed out")
        return connection.Result(0, b"/b.gguf\n/other.gguf\n", b"")

    monkeypatch.setattr(connection, "run", run)
    own = World(record("planned"), models={"a": "/models/tiny.gguf", "b": "/b.gguf"})
    observer = ProjectObserver(own.host, own.spec, own.project)
    assert observer._list_absent(runner()) == ("/b.gguf",)
    assert asked == [["absent", "a" * 64, "/b.gguf"]]
    assert observer._list_absent(runner()) == ()
