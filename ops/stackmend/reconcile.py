"""The loop of every room: observe, plan, report, lock, observe again, execute, verify.

A room fills in the parts (:class:`Reconciler`); :func:`operate` is the body of its operations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar
from weakref import WeakKeyDictionary

import gevent  # type: ignore[import-untyped]
from pyinfra.api import FunctionCommand, OperationError
from pyinfra.context import ctx_config, ctx_host
from typing_extensions import override

from stackmend import connection, reporting
from stackmend.decision import Action, Finding, Locked, Plan, Refusal
from stackmend.errors import StepError, describe_fault
from stackmend.fleet import hosts as fleet
from stackmend.problems import join_problems
from stackmend.redaction import format_safe_line
from stackmend.reporting import announce
from stackmend.restraint import files
from stackmend.restraint.facts import Restraints
from stackmend.restraint.rules import (
    Desired,
    describe_pause,
    hold_back,
    is_left_alone,
    note_failure,
    note_found,
    note_mends,
    note_success,
    refuse_unreadable,
)
from stackmend.restraint.spec import RestraintPolicy
from stackmend.restraint.state import Limits, Memory, Pauses
from stackmend.text import format_limit

if TYPE_CHECKING:
    from pyinfra.api import StringCommand
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    from stackmend.reporting import Collector

#: Seconds that an operation has beside its actions: it is observed before the lock is taken, under
#: it, and at the end.
OVERHEAD = 3 * connection.TIMEOUT + connection.ANSWER_WITHIN

#: How it ends that a host is brought to what is desired: proven, left alone because somebody has
#: paused it and nothing else is wrong, or not.
Result = Literal["well", "held", "failed"]

#: What a refusal is about where a host cannot be read.
_UNREADABLE = "host"

S = TypeVar("S")
A = TypeVar("A", bound=Action)


@dataclass(frozen=True)
class Observation(Generic[S, A]):
    """One reading of a host, and what follows from it.

    :param plan: what was found, what is to be done, and what is refused.
    :param state: what the host has; ``None`` where it could not be read.
    """

    plan: Plan[A]
    state: S | None = None


class Reconciler(ABC, Generic[S, A]):
    """What one room fills into the loop, for one host.

    :ivar subject: what an error is about, for the report.
    :cvar all_or_nothing: whether one refusal keeps every action from being executed.
    :cvar step_limit: seconds that an action has.
    :cvar advice: lines that follow each error.
    :cvar drift: the kinds of findings that say no more than that a host is not as desired: what
        runs there may be well.
    :cvar is_restrained: whether pauses and limits keep its plans from being executed.
    :cvar rooms: rooms besides its own that its plans change: a pause of one holds them as well.
    :ivar operation: what its mends are counted as, and held as, where it is another operation than
        the one that it reports to; empty where it is that.
    """

    subject: str
    all_or_nothing: ClassVar[bool] = True
    is_restrained: ClassVar[bool] = True
    step_limit: ClassVar[float] = connection.LIMIT
    advice: ClassVar[tuple[str, ...]] = ()
    drift: ClassVar[frozenset[str]] = frozenset()
    rooms: ClassVar[tuple[str, ...]] = ()

    operation: str = ""
    host: Host
    report: Collector

    #: What the host remembers of pauses and limits, as it was read with the last facts.
    memory: Memory | connection.Unknown | None = None
    #: Whether this run has begun to execute a plan.
    attempted: bool = False

    @abstractmethod
    def observe(self, *, fresh: bool = False) -> Observation[S, A]:
        """Read the host and plan. Changes nothing.

        :param fresh: whether what was read before is read again.
        """

    def list_states(self, observation: Observation[S, A]) -> tuple[object, ...]:
        """What was read of the host, as the room's ``state`` has it, for whoever explains it.

        :param observation: what was observed.
        """
        return () if observation.state is None else (observation.state,)

    @abstractmethod
    def execute(self, plan: Plan[A], state: S, lease: connection.Lease) -> bool:
        """Carry out the actions of a plan in its order, and decide nothing.

        :param plan: what is to be done.
        :param state: what was read under the lock, and the plan rests on.
        :param lease: the lock of the host; each action checks it first.
        :returns: whether it makes sense to verify; ``False`` where the reason is reported already.
        :raises StepError: a step failed.
        """

    def fetch(self, *facts: tuple[type, Mapping[str, Any]], fresh: bool = False) -> list[Any]:
        """Facts of the host, over one channel at most.

        :param facts: pairs of a fact class and its keyword arguments.
        :param fresh: whether those that were read before and are still valid are read again.
        """
        # Over the same channel, whatever is executed on the host before it is asked for.
        asked = [*facts, (Restraints, {})]
        if fresh:
            values = connection.fetch_facts(self.host, asked)
        else:
            for fact, arguments in asked:
                connection.prefetch(self.host, fact, **arguments)
            values = [connection.read(self.host, fact, **arguments) for fact, arguments in asked]
        *found, self.memory = values
        return found

    def wait_until_ready(self) -> Observation[S, A]:
        """Observe before anything is executed, once the host can be judged at all."""
        return self.observe()

    def hold(self) -> AbstractContextManager[connection.Lease]:
        """Hold the lock that keeps other runs from acting meanwhile: that of the host, for the run.

        :raises LeaseHeld: another run has it.
        :raises Stopped: no further host may be changed.
        """
        return nullcontext(fleet.hold(self.host))

    def wait_until_idle(self) -> None:
        """Wait, once the lock is held, for commands that outlived the run that began them.

        :raises StepError: one is still at work.
        """

    def take_turn(self, plan: Plan[A]) -> AbstractContextManager[None]:
        """Wait, under the lock, for what this process does elsewhere that would spoil the plan.

        Entered before the host is observed under the lock, and left at the end.

        :param plan: what is to be done, as far as that is known.
        :raises StepError: that takes too long.
        """
        return nullcontext()

    def verify(self, plan: Plan[A], state: S) -> Observation[S, A]:
        """Observe what was made of a host; its plan must be empty now.

        :param plan: what was executed.
        :param state: what the host had before.
        :raises StepError: it is not proven.
        """
        return self.observe(fresh=True)

    def verify_part(self, plan: Plan[A], state: S) -> Observation[S, A]:
        """Observe what was made of a host where a plan was executed in part.

        :param plan: what was executed.
        :param state: what the host had before.
        :raises StepError: what was executed is not proven.
        """
        return self.observe(fresh=True)

    def list_affected(self, subjects: Collection[str]) -> Collection[str]:
        """What cannot be well while something is left alone, by its name in a finding.

        :param subjects: what is left alone.
        """
        return ()

    def find_limit(self, plan: Plan[A]) -> float:
        """Seconds after which a run that carries out a plan has ended, whatever hangs.

        :param plan: what is to be done.
        """
        return OVERHEAD + sum(map(self.find_step_limit, plan.actions))

    def find_step_limit(self, action: A) -> float:
        """Seconds that one action has.

        :param action: one of the room's.
        """
        return self.step_limit

    def is_sound(self, plan: Plan[A]) -> bool:
        """Whether a host was well before a plan changes it, as far as its findings say.

        :param plan: what is to be done.
        """
        return {finding.kind for finding in plan.problems} <= self.drift

    def preview(self, observation: Observation[S, A]) -> Plan[A]:
        """The plan as it is reported while nothing is executed yet."""
        return observation.plan

    def leave_out(self, actions: Sequence[A], held: Sequence[A]) -> tuple[A, ...]:
        """The actions of a plan that can be executed although some of them are held; none here.

        :param actions: all of them, in their order.
        :param held: those that a pause or a limit keeps from being executed.
        """
        return ()

    def identify_desired(self) -> str:
        """What tells what is desired now from what was before, so that limits begin anew."""
        return ""

    def run(
        self,
        command: StringCommand,
        failure: str,
        *,
        stdin: bytes | None = None,
        timeout: float | None = None,
        closing: bool = False,
    ) -> connection.Result:
        """Run a command that has to succeed.

        :param failure: what did not succeed otherwise, such as ``"the engine does not start"``.
        :param stdin: what it reads.
        :param timeout: seconds that it may take; the connection's own limit by default.
        :param closing: whether it is run even where a signal is about to end the run.
        :raises StepError: it ended with another status than 0, which the error has.
        """
        result = connection.run(
            self.host,
            command,
            stdin=stdin,
            timeout=timeout,
            closing=closing,
        )
        if not result.ok:
            raise StepError(f"{failure}: {result.reason}", status=result.status)
        return result

    @contextmanager
    def step(self, *actions: Action) -> Iterator[None]:
        """Report and journal what the block does, however it ends.

        :param actions: what the block does.
        :raises TimeOver: the run was at work on the host for as long as it may.
        """
        with self.change(*actions), announce.track(self.host, self.report, *actions):
            yield

    @contextmanager
    def change(self, *actions: Action) -> Iterator[None]:
        """Mark a time in which the host is changed, as far as its lock and its limits allow it.

        :param actions: what the block does.
        :raises ConnectionLost: the lock of the host was lost.
        :raises TimeOver: the run was at work on the host for as long as it may.
        """
        names = ", ".join(f"{action.verb} {action.subject}" for action in actions)
        fleet.check_time(self.host, names)
        fleet.check_lock(self.host)
        fleet.note_step(self.host, prepares=all(action.prepares for action in actions))
        yield

    def allow_return(self) -> AbstractContextManager[None]:
        """Mark a time in which what was done is taken back: no limit of the host keeps it off."""
        return fleet.allow_return(self.host)

    def report_plan(self, plan: Plan[A]) -> None:
        """Show what was found and what follows, on the terminal and in the report."""
        announce.report_plan(self.host, self.report, plan)

    def report_error(self, error: StepError | OSError) -> None:
        """Show an error, its first line for itself, on the terminal and in the report."""
        first, *rest = str(error).splitlines() or [""]
        log = error.log if isinstance(error, StepError) else ()
        announce.report_error(
            self.host, self.report, self.subject, first, [*rest, *log, *self.advice]
        )


def operate(
    host: Host, name: str, build: Callable[[Collector], Reconciler[Any, Any]], *, converged: str
) -> Generator[FunctionCommand, None, None]:
    """The body of an operation: validate, observe, and execute where something is to be done.

    :param host: the host.
    :param name: the operation's name, such as ``ports.free``.
    :param build: validates the arguments; its ``ValueError`` says which is wrong and what is right.
    :param converged: what to say where nothing is to be done.
    :raises OperationError: an argument is wrong, and nothing is executed yet.
    """
    report = reporting.record(host, name)
    connection.prefetch(host, Restraints)
    if (readings := _find_readings(host)) is not None:
        readings[name] = _read_only(host, build, report)
        return
    try:
        if host.state.is_executing:
            fleet.watch(host)
        room = build(report)
    except ValueError as error:
        yield from yield_invalid(host, name, join_problems(error))
        return
    except connection.RemoteError as error:
        # An argument that is a function may ask the host.
        yield from yield_failure(host, name, str(error))
        return
    try:
        if report_observation(room):
            if host.state.is_executing:
                _note_found(room, Plan())
                _remember(room, succeeded=True)
            host.noop(converged)
            return
        yield _Untimed(reconcile, (room,), {})
    finally:
        report.add_measure("channels", connection.count_channels(host), "channels")


#: By run: what it may do again and again on a host, where nobody attends it.
_unattended: WeakKeyDictionary[State, dict[str, RestraintPolicy]] = WeakKeyDictionary()


def run_unattended(host: Host, policy: RestraintPolicy | None = None) -> None:
    """Have this run keep to the limits of what nobody attends. To be called first in a deploy.

    What was mended again and again without lasting is left alone, and a host where runs failed is
    so for a while. A run that a person has started keeps to pauses alone.

    :param host: the host.
    :param policy: the limits.
    """
    _unattended.setdefault(host.state, {})[host.name] = policy or RestraintPolicy()


def _find_policy(host: Host) -> RestraintPolicy | None:
    return _unattended.get(host.state, {}).get(host.name)


@dataclass(frozen=True)
class Reading:
    """What one operation read of a host that is only observed.

    :param plan: what it found, would do and refuses.
    :param states: what it read.
    :param problem: why it could not read; empty where it could.
    """

    plan: Plan[Any] = field(default_factory=Plan)
    states: tuple[object, ...] = ()
    problem: str = ""


#: By run: what was read of its hosts, where it only observes.
_readings: WeakKeyDictionary[State, dict[str, dict[str, Reading]]] = WeakKeyDictionary()


def observe_only(host: Host) -> None:
    """Have every operation of this run observe and no more, on all hosts, also without ``--dry``.

    No lock is held, nothing is executed, journaled or verified, and nothing that an operation finds
    or that goes wrong in it fails the host. To be called first in a deploy.

    :param host: a host of the run.
    """
    _readings.setdefault(host.state, {})
    reporting.mark_observed(host.state)


def is_observed_only(host: Host) -> bool:
    """Whether the operations of this run observe and no more.

    :param host: a host of the run.
    """
    return host.state in _readings


def list_readings(host: Host) -> dict[str, Reading]:
    """What the operations of a run that only observes read of a host, by their names.

    :param host: the host.
    """
    return dict(_find_readings(host) or {})


def _find_readings(host: Host) -> dict[str, Reading] | None:
    by_host = _readings.get(host.state)
    return None if by_host is None else by_host.setdefault(host.name, {})


def _read_only(
    host: Host, build: Callable[[Collector], Reconciler[Any, Any]], report: Collector
) -> Reading:
    """Observe, and report what was found without showing it."""
    try:
        room = build(report)
        observation = room.observe()
        plan = room.preview(observation)
        states = room.list_states(observation)
    except Exception as error:  # one that fails hides no other
        known = isinstance(error, ValueError | StepError | connection.RemoteError)
        reason = join_problems(error) if isinstance(error, ValueError) else str(error)
        problem = format_safe_line(reason if known else f"{type(error).__name__}: {error}")
        report.add_error(problem)
        return Reading(problem=problem)
    finally:
        report.add_measure("channels", connection.count_channels(host), "channels")
    if room.is_restrained:
        notes = _list_notes(room, plan, first=not list_readings(host))
        plan = plan.model_copy(update={"findings": (*plan.findings, *notes)})
    report.add_plan(plan)
    unread = (refusal.reason for refusal in plan.refusals if refusal.subject == _UNREADABLE)
    problem = next(unread, "") if observation.state is None else ""
    return Reading(plan=plan, states=states, problem=problem)


class _Untimed(FunctionCommand):
    """What an operation does, ended by the limits of its own commands alone.

    pyinfra would end all of it, in the middle of a step, after the ``_timeout`` of one command.
    """

    @override
    def execute(self, state: State, host: Host, connector_arguments: Any) -> Any:
        def run_function() -> Any:
            with ctx_config.use(state.config.copy()), ctx_host.use(host):
                try:
                    return self.function(state, host, *self.args)
                except Exception as error:  # raised to pyinfra, which shows it
                    return error

        running = gevent.spawn(run_function)
        try:
            while not running.ready():
                with suppress(TimeoutError):
                    running.join()
        except BaseException:
            running.kill()
            raise
        if isinstance(result := running.get(), Exception):
            raise result
        return result


def report_observation(room: Reconciler[Any, Any]) -> bool:
    """Observe, and report what was found unless executing will; whether nothing is to be done."""
    preparing = not room.host.state.is_executing
    try:
        observation = room.observe()
        plan = room.preview(observation) if preparing else observation.plan
        plan = _hold_back(room, plan)
    except (StepError, connection.RemoteError) as error:
        if preparing:
            room.report_error(error)
        return False
    except Exception as error:  # pyinfra would end the run of every host for it
        if preparing:
            room.report_error(describe_fault(error))
        return False
    # Where executing follows, it reports what it finds under the lock.
    if preparing or observation.plan.empty:
        room.report_plan(plan)
    if plan.actions and not (plan.refusals and room.all_or_nothing):
        # A `_timeout` takes the place of what is shorter: of a reading, of what is asked on top of
        # it, each at most three times, and of each step.
        longer = (6 + len(plan.actions)) * connection.find_timeout(room.host)
        limit = room.find_limit(plan) + longer + fleet.find_wait(room.host)
        room.report.add_measure("limit", limit, "s")
        if preparing:
            announce.show_line(room.host, f"  ends within {format_limit(limit)}, whatever hangs")
    return observation.plan.empty


def reconcile(state: State, host: Host, room: Reconciler[Any, Any]) -> bool:
    """Bring a host to what is desired, and verify it; whether that is so.

    pyinfra calls it with its state and the host, and fails the operation on this host alone where
    it returns False.

    Where there is something to do the host is observed once more under the lock, because whoever
    held it until now may have changed what was read before.
    """
    result = _bring(room)
    if result is None:
        return False
    _remember(room, succeeded=result != "failed")
    return result != "failed"


def mend(room: Reconciler[Any, Any]) -> bool:
    """The same in the midst of another operation; whether the host is so now.

    What is left alone is not so, whoever wants it; and a failure is the other operation's.

    :param room: the room's part, with an operation of its own.
    """
    if _bring(room) != "well":
        return False
    _remember(room, succeeded=True)
    return True


def _bring(room: Reconciler[Any, Any]) -> Result | None:
    """How it ended; ``None`` where it has not begun."""
    room.attempted = False
    try:
        return _reconcile(room)
    except connection.LeaseHeld as error:
        room.report_plan(Plan(refusals=(_refuse_busy(error.holder),)))
        return None
    except fleet.Stopped as error:
        room.report_plan(Plan(refusals=(_refuse_stopped(error.hosts),)))
        return None
    except (StepError, connection.RemoteError) as error:
        room.report_error(error)
        return "failed"
    except Exception as error:  # pyinfra would show it, and the record would not have it
        room.report_error(describe_fault(error))
        return "failed"


def _reconcile(room: Reconciler[Any, Any]) -> Result:
    observed = room.wait_until_ready()
    plan = _hold_back(room, observed.plan)
    left_alone = _is_left_alone(room, plan, observed.plan)
    busy = find_other_run(room.host) if plan.refusals and not left_alone else None
    if busy and not fleet.find_wait(room.host):
        room.report_plan(Plan(refusals=(busy,)))
        return "failed"
    if not plan.actions and not busy:
        room.report_plan(plan)
        _note_found(room, observed.plan)
        return "held" if left_alone else "well" if plan.empty else "failed"
    with ExitStack() as stack:
        lease = stack.enter_context(room.hold())
        room.wait_until_idle()
        with fleet.leave_out(room.host):
            stack.enter_context(room.take_turn(plan))
        return _reconcile_locked(room, lease, restrained=_is_restrained(room))


def reconcile_locked(room: Reconciler[Any, Any], lease: connection.Lease) -> bool:
    """The same as :func:`reconcile` as a step of another room's plan; whether the host is so now.

    No pause and no limit holds it: a step that is under way is carried through, and whatever would
    have been held of it was held with the plan that it is of. The lock is held already, and errors
    are raised.

    :param lease: the lock of the host.
    :raises StepError: a step failed, or the host is not proven.
    :raises RemoteError: the host was lost on the way.
    """
    return _reconcile_locked(room, lease, restrained=False) == "well"


def _reconcile_locked(
    room: Reconciler[Any, Any], lease: connection.Lease, *, restrained: bool
) -> Result:
    # What other rooms read of the host before is of then as well.
    connection.invalidate(room.host)
    room.memory = None
    observed = room.observe(fresh=True)
    plan = observed.plan
    if restrained:
        if room.memory is None:
            # A room that has its own way to read has not read it along.
            (room.memory,) = connection.fetch_facts(room.host, [(Restraints, {})])
        plan = _hold_back(room, observed.plan)
    room.report_plan(plan)
    if restrained:
        _note_found(room, observed.plan)
    held = bool(plan.refusals) and not plan.actions and plan != observed.plan
    if held or observed.state is None or (plan.refusals and room.all_or_nothing):
        return "held" if _is_left_alone(room, plan, observed.plan) else "failed"
    fleet.note_before(room.host, well=room.is_sound(observed.plan))
    room.attempted = bool(plan.actions)
    # What is held is refused to nobody who executes the rest.
    executed = plan.model_copy(update={"refusals": observed.plan.refusals})
    if not room.execute(executed, observed.state, lease):
        return "failed"
    if plan.refusals:
        return _verify_part(room, plan, observed, restrained=restrained)
    verified = room.verify(plan, observed.state)
    if not verified.plan.empty:
        room.report_plan(_leave_out_reported(verified.plan, plan))
    if verified.plan.actions:
        left = "; ".join(map(str, verified.plan.actions))
        room.report_error(StepError(f"not proven: still to do: {left}"))
    if not verified.plan.empty:
        return "failed"
    if restrained:
        _note_mends(room, plan.actions)
    return "well"


def _verify_part(
    room: Reconciler[Any, Any],
    plan: Plan[Any],
    observed: Observation[Any, Any],
    *,
    restrained: bool,
) -> Result:
    """How it ended where a part of a plan was executed: that has to be proven as well."""
    # Nothing counts what it came to, and it has failed in any case.
    uncounted = plan == observed.plan and _find_policy(room.host) is None
    if uncounted or not plan.actions or not restrained:
        return "failed"
    memory = room.memory
    left = room.verify_part(plan, observed.state).plan
    # What is paused only now was none of what was executed.
    room.memory = memory
    held = _hold_back(room, left)
    broken = {each.subject for each in (*left.actions, *left.problems)}
    _note_mends(room, [action for action in plan.actions if action.subject not in broken])
    done = {action.subject for action in plan.actions}
    if unproven := sorted(done & broken):
        room.report_plan(_leave_out_reported(left, plan))
        room.report_error(StepError(f"not proven: {', '.join(unproven)}"))
        return "failed"
    # What was tried did not fail, whatever is left.
    room.attempted = False
    if held.actions:
        return "failed"
    return "held" if _is_left_alone(room, held, left) else "failed"


# What keeps a plan from being executed


def _is_restrained(room: Reconciler[Any, Any]) -> bool:
    """Whether anything does at all: what takes back what was done is not to be kept from it."""
    return room.is_restrained and not fleet.is_returning(room.host)


def _is_left_alone(room: Reconciler[Any, Any], plan: Plan[Any], found: Plan[Any]) -> bool:
    return is_left_alone(plan, found, room.drift, room.list_affected)


def _read_memory(room: Reconciler[Any, Any]) -> Memory:
    """What the host remembers; of what cannot be read, that it cannot be read."""
    if room.memory is None:
        room.memory = connection.read(room.host, Restraints)
    memory = room.memory
    if isinstance(memory, Memory):
        return memory
    return Memory(now=0, pauses_problem=memory.reason, limits_problem=memory.reason)


def _hold_back(room: Reconciler[Any, Any], plan: Plan[Any]) -> Plan[Any]:
    """A plan as far as nothing keeps it from being executed; decided here and nowhere else."""
    if not _is_restrained(room):
        return plan
    memory = _read_memory(room)
    for pause in memory.list_pauses():
        text = describe_pause(pause, memory.now)
        if pause.only:
            reporting.mark_part_paused(room.host, pause.only, text)
        else:
            reporting.mark_paused(room.host, text)
    policy = _find_policy(room.host)
    return hold_back(plan, policy, memory, _identify(room), room.leave_out)


def _identify(room: Reconciler[Any, Any]) -> Desired:
    return Desired(
        operation=room.operation or room.report.name,
        rooms=room.rooms,
        fingerprint=room.identify_desired(),
    )


def _list_notes(room: Reconciler[Any, Any], plan: Plan[Any], *, first: bool) -> Iterator[Finding]:
    """What would keep a plan from being executed that is only observed.

    :param first: whether nothing else of the host was read before.
    """
    memory = _read_memory(room)
    if memory.pauses_problem and first:
        refusal = refuse_unreadable(memory.pauses_problem)
        yield Finding(
            subject=refusal.subject, kind="unknown", cause=refusal.reason, remedy=refusal.remedy
        )
    desired = _identify(room)
    for pause in memory.list_pauses():
        covered = any(desired.is_covered(pause, action) for action in plan.actions)
        # One that nothing ends is named whatever it is of: somebody may have forgotten it.
        if first if not pause.only or pause.until is None else covered:
            text = describe_pause(pause, memory.now)
            yield Finding(subject=pause.only or "host", kind="paused", cause=text, blocks=False)


def _note_found(room: Reconciler[Any, Any], plan: Plan[Any]) -> None:
    """Remember what is left alone for its limit until when, and forget what has lasted."""
    policy = _find_policy(room.host)
    if policy is None or not _is_restrained(room):
        return
    desired = _identify(room)
    _write_limits(room, lambda memory: note_found(memory.limits, plan, policy, memory.now, desired))


def _note_mends(room: Reconciler[Any, Any], actions: Sequence[Action]) -> None:
    """Remember what was mended, and is proven so."""
    if _find_policy(room.host) is not None and _is_restrained(room) and actions:
        desired = _identify(room)
        _write_limits(room, lambda memory: note_mends(memory.limits, actions, memory.now, desired))


def _remember(room: Reconciler[Any, Any], *, succeeded: bool) -> None:
    """Remember how an operation ended, and drop the pauses that have run out."""
    if not _is_restrained(room) or not isinstance(room.memory, Memory):
        return
    memory, policy, desired = room.memory, _find_policy(room.host), _identify(room)
    paused = any(not pause.only for pause in memory.list_pauses())
    if succeeded and not paused and not room.report.refusals:
        _write_limits(
            room, lambda memory: note_success(memory.limits, desired, attended=policy is None)
        )
    elif policy is not None and room.attempted and not succeeded:
        reason = next((error.message for error in reversed(room.report.errors)), "")
        _write_limits(
            room, lambda memory: note_failure(memory.limits, reason, policy, memory.now, desired)
        )
    if any(pause.is_over(memory.now) for pause in memory.pauses):
        _drop_pauses(room)


def _write_limits(room: Reconciler[Any, Any], change: Callable[[Memory], Limits]) -> None:
    """Change what is remembered of limits, by what the host has at this moment."""
    memory = _read_memory(room)
    if change(memory) == memory.limits:
        return
    # What was executed in between, such as the answer to an engine's error, has changed it as well.
    try:
        (found,) = connection.fetch_facts(room.host, [(Restraints, {})])
    except connection.RemoteError:
        return
    if not isinstance(found, Memory):
        # The host is lost, or its clock cannot be read: what failed says so itself.
        return
    limits = change(found)
    if limits != found.limits:
        _write(room, files.LIMITS, limits if limits != Limits() else None)
    room.memory = found.model_copy(update={"limits": limits, "limits_problem": ""})


def _drop_pauses(room: Reconciler[Any, Any]) -> None:
    """Drop the pauses that have run out, unless somebody changes them at this moment."""
    with suppress(connection.RemoteError), connection.hold_lock(room.host, files.LOCK):
        (memory,) = connection.fetch_facts(room.host, [(Restraints, {})])
        if isinstance(memory, Memory) and not memory.pauses_problem:
            left = memory.list_pauses()
            _write(room, files.PAUSES, Pauses(pauses=left) if left else None)


def _write(room: Reconciler[Any, Any], path: str, content: Pauses | Limits | None) -> None:
    """Write what is remembered; that it cannot be is said, and fails nothing."""
    command = files.write(path, present=content is not None)
    stdin = files.dump(content) if content is not None else None
    try:
        result = connection.run(room.host, command, stdin=stdin, closing=True)
        reason = "" if result.ok else result.reason
    except connection.RemoteError as error:
        reason = str(error)
    if reason:
        finding = Finding(
            subject=path,
            kind="not written",
            cause=f"what keeps runs from mending the same again is not remembered: {reason}",
            remedy="see what keeps root from writing it, such as a full disk",
            blocks=False,
        )
        room.report_plan(Plan(findings=(finding,)))


def _leave_out_reported(plan: Plan[A], reported: Plan[A]) -> Plan[A]:
    """A plan without the findings and refusals that an earlier one has, evidence and all."""
    findings = tuple(found for found in plan.findings if found not in reported.findings)
    refusals = tuple(refused for refused in plan.refusals if refused not in reported.refusals)
    return plan.model_copy(update={"findings": findings, "refusals": refusals})


def yield_invalid(host: Host, operation: str, reason: str) -> Iterator[FunctionCommand]:
    """What an operation yields whose arguments are wrong, so that it fails on its host alone.

    :param host: the host it is about.
    :param operation: its name, such as ``ports.free``.
    :param reason: what is wrong, and what would be right.
    :raises OperationError: nothing is executed yet.
    """
    # Raised while executing it would end the run on every other host as well.
    if not host.state.is_executing:
        raise OperationError(reason)
    yield from yield_failure(host, operation, reason)


def yield_failure(host: Host, operation: str, reason: str) -> Iterator[FunctionCommand]:
    """What an operation yields that cannot do anything: a command that fails, on its host alone.

    :param host: the host it is about.
    :param operation: its name.
    :param reason: why not.
    """
    yield FunctionCommand(_fail, (operation, reason), {})


def _fail(state: State, host: Host, operation: str, reason: str) -> bool:
    announce.report_error(host, reporting.record(host, operation), "", reason)
    return False


def find_other_run(host: Host) -> Locked | None:
    """The refusal to do anything while another run is at work: what is seen then is half made.

    :param host: the host.
    """
    try:
        holder = connection.find_holder(host, (fleet.LOCK,))
    except connection.RemoteError:
        # Then only the reading itself says anything.
        return None
    return _refuse_busy(holder) if holder else None


def _refuse_busy(holder: str) -> Locked:
    return Locked(
        subject="host",
        reason=f"another run is at work here: {holder}",
        remedy="wait for that run to end, then run again; --wait 10min waits for it",
    )


def _refuse_stopped(worse: Sequence[str]) -> Refusal:
    if not worse:
        return Refusal(
            subject="host",
            reason="left as it is: the run has ended, as too many of its hosts failed",
            remedy="see what failed there, then run again; pyinfra's FAIL_PERCENT says how many",
        )
    names = ", ".join(worse)
    return Refusal(
        subject="host",
        reason=f"left as it is: {len(worse)} hosts in a row got worse by being changed: {names}"
        if len(worse) > 1
        else f"left as it is: {names} got worse by being changed",
        remedy="see what failed there, then run again; reconcile.stop_after says after how many",
    )


def observe_unreadable(state: connection.Unknown, what: str) -> Observation[Any, Any]:
    """What is observed where a host cannot be read: a refusal, and no state.

    :param state: why there is no state.
    :param what: what cannot be read, such as ``who holds its ports``.
    """
    refusal = Refusal(
        subject=_UNREADABLE,
        reason=f"{what} cannot be read: {state.reason}",
        remedy="fix the error above and rerun; stackmend never changes a host it cannot read",
    )
    return Observation(Plan(refusals=(refusal,)))
