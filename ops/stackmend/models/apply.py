"""Carry out a plan and prove it. What is to be done is decided by ``plan``, never here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.acting import act_upon
from stackmend.errors import StepError
from stackmend.models import commands, peers
from stackmend.models.bringing import Bringer
from stackmend.models.client import Client
from stackmend.models.errors import TransientError
from stackmend.models.look import Look, Reader
from stackmend.models.plan import Action, Plan, forgotten, plan, remembered
from stackmend.models.spec import ModelsSpec
from stackmend.models.state import Record, Recorded, StoreState
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    from stackmend.reporting import Collector

#: Seconds that a server of the stack's own has to become healthy and to answer.
PATIENCE = 120.0

#: Seconds likewise where no healthcheck says that it is still starting.
UNSAID = 40.0

#: Seconds between two looks at a server that is coming up.
PAUSE = 2.0

#: What ends the steps of one model, and of no other.
_ENDS = (StepError, TransientError, OSError, ValueError)


class Pulling(Reader):
    """The wanted models of one host, to be brought to its server."""

    def __init__(self, host: Host, spec: ModelsSpec, report: Collector) -> None:
        super().__init__(host, spec, report)
        self._bringer = Bringer(host, spec)
        self._record = Record()
        self._recording = threading.Lock()
        if spec.source == "peer":
            peers.fleet(host.state).join(host, spec.asked())

    def converge(self, state: State, host: Host) -> bool:
        """Bring the wanted models to the server, prove it, and say whether all are there.

        pyinfra fails the operation on this host alone where this returns False.
        """
        try:
            return act_upon(self._ready(), self, commands.LOCK)
        except _ENDS as error:
            self.failed(str(error))
        finally:
            self.report.measured("fetched", self._bringer.fetched, "bytes")
            if self.spec.source == "peer":
                self.report.measured("relayed", self._bringer.relayed, "bytes")
        return False

    def _ready(self) -> Look:
        """A look at the server once it is healthy and answers, or as it is when time is over."""
        look = self.look()
        begun = time.monotonic()
        while time.monotonic() - begun < self._patience(look):
            time.sleep(PAUSE)
            look = self.look_again()
        return look

    def _patience(self, look: Look) -> float:
        """Seconds that a server is waited for in all."""
        # What is behind an endpoint is not the stack's own: nobody is bringing it up now.
        if look.state is None or self.spec.endpoint or not look.state.server.coming:
            return 0.0
        return PATIENCE if look.state.server.said_to_come else UNSAID

    def carry_out(self, look: Look, lease: connection.Lease) -> bool:
        """Bring what a look found missing, and prove it."""
        if look.state is None:
            return False
        state, actions = look.state, look.plan.actions
        self._record = state.record
        wrong = {
            key
            for action in actions
            if action.verb == "delete blob"
            for key in self._attempt([action], state, lease)
        }
        # What is created may be made from what is pulled.
        pulled = [one for one in actions if one.verb in ("pull", "copy") or _clears(one)]
        created = [one for one in actions if one.verb == "create"]
        for steps in (pulled, created):
            rest = [one for one in steps if one.serves not in wrong]
            wrong |= self._side_by_side(rest, state, lease)
        for action in actions:
            if not action.serves:
                wrong |= self._attempt([action], state, lease)
        fetching = {one.serves for one in (*pulled, *created)}
        proven = self._prove(look, fetching - wrong, changed=bool(fetching), quiet=bool(wrong))
        return proven and not wrong and not look.plan.refusals

    def _side_by_side(
        self, actions: Sequence[Action], state: StoreState, lease: connection.Lease
    ) -> set[str]:
        """Each model's steps in order, those of several models at once; which models failed."""
        chains: dict[str, list[Action]] = {}
        for action in actions:
            chains.setdefault(action.serves, []).append(action)
        if not chains:
            return set()
        with ThreadPoolExecutor(max_workers=min(len(chains), self.spec.parallel)) as pool:
            ended = pool.map(lambda chain: self._attempt(chain, state, lease), chains.values())
            return set().union(*ended)

    def _attempt(
        self, chain: Sequence[Action], state: StoreState, lease: connection.Lease
    ) -> set[str]:
        """The steps of one model, until one fails; which model failed."""
        for action in chain:
            try:
                lease.check()
                with announce.track(self.host, self.report, action):
                    self._step(action, state)
            except _ENDS as error:
                self.failed(f"could not {action.verb} {action.subject}: {error}")
                return {action.serves}
        return set()

    def _step(self, action: Action, state: StoreState) -> None:
        client = Client(self.host, state.server)
        match action.verb:
            case "delete blob":
                self._delete_blob(action, state)
            case "pull":
                self._bringer.pull(action, state)
                self._remember(action, state)
            case "copy":
                assert action.source is not None, "a copy has a source"
                assert action.name is not None, "and a name"
                client.copy(action.source, action.name)
                self._remember(action, state)
            case "create":
                self._bringer.create(action, state)
                self._remember(action, state)
            case "remove":
                assert action.name is not None, "what is removed has a name"
                client.remove(action.name)
                name = str(action.name)
                self._write(lambda record: forgotten(record, [name]))
            case "record":
                self._write(lambda record: forgotten(record, action.forgotten))

    def _delete_blob(self, action: Action, state: StoreState) -> None:
        place = state.server.place
        if place is None:
            raise StepError("its disk cannot be reached")
        result = connection.run(self.host, commands.delete_blob(place, action.digest))
        if not result.ok:
            raise StepError(result.reason)

    def _remember(self, action: Action, state: StoreState) -> None:
        """A model that was not there before, or that we brought before, is ours to let go."""
        name = action.name
        assert name is not None, "what is brought has a name"
        ours = action.verb == "create" or state.recorded(name) is not None
        if state.model(name) is not None and not ours:
            return
        entry = Recorded(
            digest=action.manifest.digest if action.manifest is not None else "",
            at=state.now,
            made_from=action.made.digest if action.made is not None else "",
        )
        self._write(lambda record: remembered(record, name, entry))

    def _write(self, change: Callable[[Record], Record]) -> None:
        with self._recording:
            record = change(self._record)
            if record == self._record:
                return
            written = connection.run(
                self.host,
                commands.remember(self.spec.record),
                stdin=record.model_dump_json().encode(),
            )
            if not written.ok:
                raise StepError(f"{self.spec.record} could not be written: {written.reason}")
            self._record = record

    def _prove(self, look: Look, brought: Collection[str], *, changed: bool, quiet: bool) -> bool:
        """Read again, have each model that was brought say a word, and see that nothing is left.

        :param brought: keys of the models.
        :param changed: whether blobs were changed.
        :param quiet: what went wrong was told already.
        """
        connection.invalidate(self.host)
        state = self.state(changed=changed)
        self._bringer.settle(state)
        self._write(lambda record: _as_they_are(record, state))
        answer = True
        client = Client(self.host, state.server)
        for one in self.spec.wanted:
            if one.name.key in brought:
                try:
                    client.say_a_word(one.name)
                except (StepError, TransientError) as error:
                    answer = False
                    self.failed(f"{one} was brought, but does not answer: {error}")
        left = plan(
            self.spec,
            state.model_copy(update={"record": self._record}),
            look.registry,
            look.made,
        )
        news = _news(left, look.plan)
        if not news.empty and not quiet:
            self.tell(news)
        return left.empty and answer


def _news(left: Plan, told: Plan) -> Plan:
    """What is left and was not told before."""
    return Plan(
        findings=tuple(one for one in left.findings if one not in told.findings),
        actions=left.actions,
        refusals=tuple(one for one in left.refusals if one not in told.refusals),
    )


def _as_they_are(record: Record, state: StoreState) -> Record:
    """A record with the digests that the server gives to what was brought."""
    digests = {str(model.name): model.digest for model in state.models}
    return Record(
        models={
            name: one
            if one.digest or name not in digests
            else one.model_copy(update={"digest": digests[name]})
            for name, one in record.models.items()
        }
    )


def _clears(action: Action) -> bool:
    """Whether a step takes away the name that a model was pulled by."""
    return action.verb == "remove" and bool(action.serves)
