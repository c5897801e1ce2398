"""Go through the wanted models: what is wrong with each, and what is done about it."""

from collections.abc import Mapping

from stackmend.decision import Finding, Refusal
from stackmend.models.plan import rest, words
from stackmend.models.plan.model import Action, Made, Plan
from stackmend.models.plan.space import lacking
from stackmend.models.plan.stored import absent, broken, stored, whole
from stackmend.models.spec import ModelSpec, ModelsSpec
from stackmend.models.state import Manifest, Registry, RegistryAnswer, StoredModel, StoreState


def plan(
    spec: ModelsSpec,
    state: StoreState,
    registry: Registry | None = None,
    made: Mapping[str, Made] | None = None,
) -> Plan:
    """What is to be done so that the wanted models are on the server, whole and current.

    :param spec: the wanted models, and what may be done for them.
    :param state: what the server has.
    :param registry: what the registries say of the models that were asked for; a model that is not
        in it was not asked for.
    :param made: what models are to be created from, by the model's key.
    """
    if state.server.status != "up":
        return Plan(refusals=(words.no_server(spec, state.server),))
    return _Decision(spec, state, registry or {}, made or {}).plan()


class _Decision:
    """One pass over everything that is wanted."""

    def __init__(
        self, spec: ModelsSpec, state: StoreState, registry: Registry, made: Mapping[str, Made]
    ) -> None:
        self.spec = spec
        self.state = state
        self.registry = registry
        self.made = made
        self.findings: list[Finding] = []
        self.refusals: list[Refusal] = []
        self.deletes: dict[str, Action] = {}
        self.pulls: list[Action] = []
        self.creates: list[Action] = []

    def plan(self) -> Plan:
        for one in self.spec.wanted:
            if one.created:
                self._create(one)
            else:
                self._pull(one)
        self.findings += rest.notes(self.spec, self.state)
        fetched = [*self.deletes.values(), *self.pulls, *self.creates]
        if short := lacking(self.spec, self.state, fetched, self.deletes):
            self.refusals.append(short)
            fetched = []
        # What another model is pulled by is removed with that model's own steps.
        busy = {action.name.key for action in self.pulls if action.name is not None}
        pruned, kept = rest.prune(self.spec, self.state, busy)
        return Plan(
            findings=(*self.findings, *kept),
            actions=(*fetched, *pruned, *rest.forget(self.spec, self.state)),
            refusals=tuple(self.refusals),
        )

    def _pull(self, one: ModelSpec) -> None:
        assert one.pulled is not None, "a model that is created is not pulled"
        has = self.state.model(one.name)
        answer = self.registry.get(str(one.pulled))
        manifest = answer.manifest if answer is not None else None
        if has is not None and whole(self.state, has):
            self._present(one, has, answer)
            return
        kind, cause = self._wrong(one, has)
        self.findings.append(
            Finding(subject=str(one), kind=kind, cause=cause, evidence=self._evidence(has))
        )
        if answer is not None and answer.status == "absent":
            self._refuse(
                one, f"{cause}, and {words.where(one)} has no such model", words.nearest(answer)
            )
            return
        way = self._another_way(answer) if manifest is None else ""
        if manifest is None and not way:
            assert answer is not None, "an absent model's registry is asked"
            self._refuse(
                one,
                f"{cause}, and {words.where(one)} {words.unreachable(answer)}",
                words.way(answer),
            )
            return
        moved = has is not None and manifest is not None and not manifest.equals(has)
        if moved and self.spec.update == "never":
            self._refuse(
                one,
                f"{cause}, and {words.where(one)} has another model under this name by now",
                '"update": "always" in the stack\'s "models" section lets that one be pulled',
            )
            return
        self._fetch(one, has, answer, f"{cause}; {way}" if way else cause)

    def _present(self, one: ModelSpec, has: StoredModel, answer: RegistryAnswer | None) -> None:
        """A model that is there and whole: is it the one that the registry has?"""
        if answer is None:
            return
        if answer.status != "found":
            said = (
                "has no such model any more"
                if answer.status == "absent"
                else words.unreachable(answer)
            )
            self._note(
                one,
                "unchecked",
                f"present; whether it is current is not known, as {words.where(one)} {said}",
            )
            return
        assert answer.manifest is not None, "what was found has a manifest"
        if answer.manifest.equals(has):
            return
        digests = f"{has.digest[:12]} → {answer.manifest.digest[:12]}"
        cause = f"{words.where(one)} has another one by now: {digests}"
        if self.spec.update == "never":
            self._note(one, "moved", f'{cause}; "update": "always" pulls it')
            return
        self.findings.append(Finding(subject=str(one), kind="moved", cause=cause))
        self._fetch(one, has, answer, cause)

    def _fetch(
        self, one: ModelSpec, has: StoredModel | None, answer: RegistryAnswer | None, cause: str
    ) -> None:
        assert one.pulled is not None, "a model that is created is not pulled"
        manifest = answer.manifest if answer is not None else None
        self._delete(one, has, manifest)
        size = sum(absent(self.state, manifest).values())
        model, serves = str(one.name), one.name.key
        here = self.state.model(one.pulled)
        ready = (
            one.source is not None
            and here is not None
            and whole(self.state, here)
            and manifest is not None
            and manifest.equals(here)
        )
        if not ready:
            self.pulls.append(
                Action(
                    verb="pull",
                    subject=str(one.pulled),
                    cause=cause + (f" ({words.human(size)} to fetch)" if manifest else ""),
                    undo="" if has else f"ollama rm {model}",
                    name=one.pulled,
                    insecure=self.spec.over_http(one),
                    manifest=manifest,
                    unreachable=self._barred(one, answer),
                    bytes=size,
                    serves=serves,
                )
            )
        if one.source is None or one.source.key == one.name.key:
            return
        self.pulls.append(
            Action(
                verb="copy",
                subject=model,
                cause=f"it is pulled as {one.source}",
                undo="" if has else f"ollama rm {model}",
                name=one.name,
                source=one.source,
                manifest=manifest,
                serves=serves,
            )
        )
        if here is None and all(one.source.key != other.name.key for other in self.spec.wanted):
            self.pulls.append(
                Action(
                    verb="remove",
                    subject=str(one.source),
                    cause=f"its blobs are those of {model} now, and nobody wants that name",
                    undo=f"ollama cp {model} {one.source}",
                    name=one.source,
                    serves=serves,
                )
            )

    def _delete(self, one: ModelSpec, has: StoredModel | None, manifest: Manifest | None) -> None:
        """Blobs that a pull would take for whole, because it only looks whether a file is there."""
        wrong: dict[str, str] = {}
        if manifest is None:
            for problem in broken(self.state, has) if has is not None else ():
                wrong[problem.digest] = words.told(problem) if problem.kind != "missing" else ""
        else:
            problems = {problem.digest: problem for problem in self.state.problems}
            for layer in manifest.layers:
                found = (self.state.blobs or {}).get(layer.digest)
                if layer.digest in problems and problems[layer.digest].kind != "missing":
                    wrong[layer.digest] = words.told(problems[layer.digest])
                elif found is not None and found != layer.size:
                    wrong[layer.digest] = f"it has {found} bytes instead of {layer.size}"
        for digest, told in wrong.items():
            if told:
                self.deletes.setdefault(
                    digest,
                    Action(
                        verb="delete blob",
                        subject=digest[:19],
                        cause=f"{told}; a pull would keep it as it is",
                        undo="it is fetched anew",
                        digest=digest,
                        serves=one.name.key,
                    ),
                )

    def _wrong(self, one: ModelSpec, has: StoredModel | None) -> tuple[str, str]:
        if has is None:
            return "missing", "not on the server"
        problems = broken(self.state, has)
        if not problems:
            return "broken", "its manifest is on the disk, but the server does not list it"
        counts = dict.fromkeys(("missing", "truncated", "corrupt"), 0)
        for problem in problems:
            counts[problem.kind] += 1
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        return "broken", f"not whole: of its {len(has.layers or ())} blobs {told}"

    def _evidence(self, has: StoredModel | None) -> tuple[str, ...]:
        return () if has is None else tuple(map(words.told, broken(self.state, has)))

    def _another_way(self, answer: RegistryAnswer | None) -> str:
        """How a model may still come whose registry did not answer; empty where it cannot."""
        if words.is_private(answer):
            return "its registry asks for authentication: the server tries with its own key"
        if self.state.server.proxy:
            return "its registry cannot be asked: the server tries through its own proxy"
        if self.spec.source == "peer":
            return "its registry cannot be asked: another host may have it"
        return ""

    def _barred(self, one: ModelSpec, answer: RegistryAnswer | None) -> str:
        """Why the server need not try to pull a model."""
        if answer is None or answer.manifest or words.is_private(answer) or self.state.server.proxy:
            return ""
        return f"{words.where(one)} {words.unreachable(answer)}; {words.way(answer)}"

    def _create(self, one: ModelSpec) -> None:
        made = self.made.get(one.name.key, Made(problem="it was not looked at"))
        has = self.state.model(one.name)
        origin = one.gguf or one.modelfile
        sound = has is not None and whole(self.state, has)
        if made.problem:
            if sound:
                self._note(one, "unchecked", f"present; {origin} cannot be read: {made.problem}")
            else:
                self._refuse(
                    one,
                    f"{self._wrong(one, has)[1]}, and {origin} cannot be read: {made.problem}",
                    "the path is one of the machine that runs this",
                )
            return
        if has is None or not sound:
            kind, cause = self._wrong(one, has)
        else:
            known = self.state.recorded(one.name)
            if known is not None and known.made_from == made.digest:
                if known.digest == has.digest:
                    return
                kind, cause = "moved", "another hand has put another model under this name"
            else:
                kind, cause = "moved", f"not made from {origin} as it is now"
            if self.spec.update == "never":
                self._note(one, kind, f'{cause}; "update": "always" creates it anew')
                return
        self.findings.append(
            Finding(subject=str(one), kind=kind, cause=cause, evidence=self._evidence(has))
        )
        self._delete(one, has, None)
        sent = sum(
            size for digest, size in made.files.items() if not stored(self.state, digest, size)
        )
        self.creates.append(
            Action(
                verb="create",
                subject=str(one),
                cause=cause + (f" ({words.human(sent)} to send)" if sent else ""),
                undo="" if has else f"ollama rm {one}",
                name=one.name,
                serves=one.name.key,
                made=made,
                bytes=sent,
            )
        )

    def _note(self, one: ModelSpec, kind: str, cause: str) -> None:
        self.findings.append(Finding(subject=str(one), kind=kind, cause=cause, blocks=False))

    def _refuse(self, one: ModelSpec, reason: str, remedy: str) -> None:
        self.refusals.append(Refusal(subject=str(one), reason=reason, remedy=remedy))
