"""Go through the desired models: what is wrong with each, and what is done about it."""

from collections.abc import Collection, Iterator, Mapping

from stackmend.decision import Finding, Refusal
from stackmend.models.plan import format, leftovers, unmanaged
from stackmend.models.plan.derived import list_bases, sort_by_base
from stackmend.models.plan.model import (
    Action,
    Ask,
    Copy,
    Create,
    DeleteBlob,
    ModelSource,
    Plan,
    Pull,
    RemoveName,
)
from stackmend.models.plan.space import check_space
from stackmend.models.plan.stored import (
    find_problems,
    has_blob,
    is_intact,
    measure_missing,
    select_to_ask,
)
from stackmend.models.spec import DEFAULT_REGISTRY, ModelSpec, ModelsSpec, Name
from stackmend.models.state import (
    Manifest,
    Recorded,
    Registry,
    RegistryAnswer,
    StoredModel,
    StoreState,
)


def plan(
    spec: ModelsSpec,
    state: StoreState,
    registry: Registry | None = None,
    sources: Mapping[str, ModelSource] | None = None,
) -> Plan:
    """What is to be done so that the desired models are on the server, complete and current.

    :param spec: the desired models, and what may be done for them.
    :param state: what the server has.
    :param registry: what the registries say of the models that were asked for; a model that is not
        in it was not asked for.
    :param sources: what models are to be created from, by the model's key.
    """
    if state.server.status != "up":
        return Plan(refusals=(format.refuse_server(spec, state.server),))
    return _Decision(spec, state, registry or {}, sources or {}).plan()


class _Decision:
    """One pass over everything that is desired."""

    def __init__(
        self,
        spec: ModelsSpec,
        state: StoreState,
        registry: Registry,
        sources: Mapping[str, ModelSource],
    ) -> None:
        self.spec = spec
        self.state = state
        self.registry = registry
        self.sources = sources
        self.findings: list[Finding] = []
        self.refusals: list[Refusal] = []
        self.deletes: dict[str, DeleteBlob] = {}
        self.pulls: list[Pull | Copy | RemoveName] = []
        self.creates: list[Create] = []

    def plan(self) -> Plan:
        created = {model.name.key: model for model in self.spec.wanted if model.is_created}
        for model in self.spec.wanted:
            name = model.pulled_as
            if name is not None:
                self._pull(model, name)
        bases = {key: source.base.key for key, source in self.sources.items() if source.base}
        for key in sort_by_base(list(created), bases):
            self._create(created[key], circular=key in list_bases(key, bases))
        self.findings += unmanaged.find_unmanaged(self.spec, self.state)
        coming = set(self._list_coming())
        self.findings += leftovers.find_unneeded(self.state, coming)
        if self.spec.hashes and not self.state.hashed:
            self.refusals.append(format.refuse_unhashed(self.state))
        fetching: list[Action] = [*self.deletes.values(), *self.pulls, *self.creates]
        if refusal := check_space(self.spec, self.state, fetching):
            self.refusals.append(refusal)
            fetching = []
        # The name that another model is pulled by is removed with that model's own steps.
        busy = {action.name.key for action in self.pulls}
        pruned, kept = unmanaged.prune(self.spec, self.state, busy)
        dropped = unmanaged.drop_removed(self.spec, self.state, busy)
        left = leftovers.drop_leftovers(self.state, coming)
        fetched = (action for action in fetching if isinstance(action, Pull | Copy | Create))
        asks = self._ask({action.for_model for action in fetched})
        return Plan(
            findings=(*self.findings, *kept),
            actions=(*fetching, *pruned, *dropped, *left, *asks),
            refusals=tuple(self.refusals),
        )

    def _list_coming(self) -> Iterator[str]:
        """Digests of the blobs that the plan's own steps need."""
        for action in (*self.pulls, *self.creates):
            if isinstance(action, Create):
                yield from action.source.files
            elif not isinstance(action, RemoveName) and action.manifest is not None:
                yield from (layer.digest for layer in action.manifest.layers)

    def _ask(self, fetched: Collection[str]) -> list[Ask]:
        """Those that stay as they are; each that is fetched is asked in any case."""
        asks = []
        for model in select_to_ask(self.spec, self.state):
            if model.name.key in fetched:
                continue
            known = model.name.key in self.state.record.answered
            cause = (
                "it or its server has changed since it last answered"
                if known
                else "it is there, but stackmend has had no answer from it"
            )
            self._add_finding(model, "unproven", cause)
            asks.append(
                Ask(subject=str(model), cause=cause, for_model=model.name.key, name=model.name)
            )
        return asks

    def _pull(self, model: ModelSpec, name: Name) -> None:
        stored = self.state.find_model(model.name)
        answer = self.registry.get(str(name))
        manifest = answer.manifest if answer is not None else None
        if stored is not None and is_intact(self.state, stored):
            self._check_current(model, name, stored, answer)
            if not any(action.for_model == model.name.key for action in self.pulls):
                self._remove_source(model, name)
            return
        kind, cause = self._classify(stored)
        self._add_finding(model, kind, cause, stored)
        if manifest is None:
            if answer is None:
                # It broke after the registries were asked: the next run asks.
                return
            if answer.status == "absent":
                self._refuse(
                    model,
                    f"{cause}, and {name.host} has no such model",
                    format.format_suggestions(answer),
                )
                return
            alternative = self._find_alternative(answer, peers=self.spec.from_peers)
            if not alternative:
                self._refuse(
                    model,
                    f"{cause}, and {format.format_unreachable(name, answer)}",
                    format.format_remedy(answer),
                )
                return
            cause = f"{cause}; {alternative}"
        elif stored is not None and not manifest.is_equal(stored) and self.spec.update == "never":
            self._refuse(
                model,
                f"{cause}, and {name.host} has another model under this name now",
                'to allow pulling that one, set "update": "always" in the stack\'s "models" '
                "section",
            )
            return
        self._fetch(model, name, stored, answer, cause)

    def _check_current(
        self, model: ModelSpec, name: Name, stored: StoredModel, answer: RegistryAnswer | None
    ) -> None:
        """An intact model: is it the one that the registry has?"""
        if answer is None:
            return
        if answer.manifest is None:
            reason = (
                f"{name.host} no longer has such a model"
                if answer.status == "absent"
                else format.format_unreachable(name, answer)
            )
            self._add_note(
                model,
                "unchecked",
                f"present; cannot tell whether it is current: {reason}",
            )
            return
        if answer.manifest.is_equal(stored):
            return
        digests = f"{stored.digest[:12]} → {answer.manifest.digest[:12]}"
        cause = f"{name.host} has another one now: {digests}"
        if self.spec.update == "never":
            self._add_note(model, "moved", f'{cause}; to pull it, set "update": "always"')
            return
        self._add_finding(model, "moved", cause)
        self._fetch(model, name, stored, answer, cause)

    def _fetch(
        self,
        model: ModelSpec,
        name: Name,
        stored: StoredModel | None,
        answer: RegistryAnswer | None,
        cause: str,
    ) -> None:
        manifest = answer.manifest if answer is not None else None
        key, undo = model.name.key, "" if stored else f"ollama rm {model}"
        self._delete_broken(key, stored, manifest)
        original = self.state.find_model(name)
        current = original is not None and manifest is not None and manifest.is_equal(original)
        if not (current and is_intact(self.state, original)):
            size = sum(measure_missing(self.state, manifest).values())
            self.pulls.append(
                Pull(
                    subject=str(name),
                    cause=cause + (f" ({format.format_size(size)} to fetch)" if manifest else ""),
                    undo=undo,
                    for_model=key,
                    name=name,
                    manifest=manifest,
                    bytes=size,
                    insecure=self.spec.is_insecure(model),
                    unreachable=self._explain_unreachable(name, answer),
                )
            )
        if name.key == key:
            return
        self.pulls.append(
            Copy(
                subject=str(model),
                cause=f"pulled as {name}",
                undo=undo,
                for_model=key,
                name=model.name,
                original=name,
                manifest=manifest,
            )
        )
        self._remove_source(model, name, coming=original is None)

    def _remove_source(self, model: ModelSpec, name: Name, *, coming: bool = False) -> None:
        """Remove the name that a model was pulled by, where it is ours: also after a run was cut.

        :param coming: whether the plan itself brings that name.
        """
        if any(name.key == other.name.key for other in self.spec.wanted):
            return
        if coming or (self.state.find_model(name) is not None and self.state.is_ours(name)):
            self.pulls.append(
                RemoveName(
                    subject=str(name),
                    cause=f'{model} has its blobs now, and this name is not in "wanted"',
                    undo=f"ollama cp {model} {name}",
                    for_model=model.name.key,
                    name=name,
                )
            )

    def _delete_broken(
        self, key: str, stored: StoredModel | None, manifest: Manifest | None
    ) -> None:
        """Blobs that a pull would keep, because it only looks whether a file is there."""
        broken: dict[str, str] = {}
        if manifest is None:
            for problem in find_problems(self.state, stored) if stored is not None else ():
                if problem.kind != "missing":
                    broken[problem.digest] = format.format_problem(problem)
        else:
            problems = {problem.digest: problem for problem in self.state.problems}
            for layer in manifest.layers:
                size = (self.state.blobs or {}).get(layer.digest)
                if layer.digest in problems and problems[layer.digest].kind != "missing":
                    broken[layer.digest] = format.format_problem(problems[layer.digest])
                elif size is not None and size != layer.size:
                    broken[layer.digest] = f"it has {size} bytes instead of {layer.size}"
        for digest, reason in broken.items():
            self.deletes.setdefault(
                digest,
                DeleteBlob(
                    subject=digest[:19],
                    cause=f"{reason}; a pull would keep it",
                    undo="the pull fetches it again",
                    for_model=key,
                    digest=digest,
                ),
            )

    def _classify(self, stored: StoredModel | None) -> tuple[str, str]:
        """What is wrong with a model that is not intact: its kind, and its cause."""
        if stored is None:
            return "missing", "not on the server"
        problems = find_problems(self.state, stored)
        if not problems:
            return "broken", "its manifest is on the disk, but the server does not list it"
        counts = dict.fromkeys(("missing", "truncated", "corrupt"), 0)
        for problem in problems:
            counts[problem.kind] += 1
        summary = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        return "broken", f"not intact: of its {len(stored.layers or ())} blobs {summary}"

    def _find_alternative(self, answer: RegistryAnswer, *, peers: bool) -> str:
        """How a model may still come whose registry did not answer; empty where it cannot."""
        if format.is_private(answer):
            return "its registry asks for authentication; the server tries with its own key"
        if self.state.server.proxy:
            return "cannot ask its registry; the server tries through its own proxy"
        if peers:
            return "cannot ask its registry; another host may have it"
        return ""

    def _explain_unreachable(self, name: Name, answer: RegistryAnswer | None) -> str:
        """Why the server need not try to pull a model."""
        if answer is None or answer.manifest or self._find_alternative(answer, peers=False):
            return ""
        return f"{format.format_unreachable(name, answer)}; {format.format_remedy(answer)}"

    def _find_base_problem(self, base: Name, *, circular: bool) -> tuple[str, str]:
        """Why a model cannot be made from another one now, and the remedy; empty where it can.

        Of a model that it does not have the server would ask a registry, also where it is ours.
        """
        if circular:
            return f"it is made from {base}, and that from it", "give one of them another name"
        coming = {action.for_model for action in (*self.pulls, *self.creates)}
        if base.key in coming or is_intact(self.state, self.state.find_model(base)):
            return "", ""
        if any(base.key == other.name.key for other in self.spec.wanted):
            return (
                f"{base}, which it is made from, cannot be brought",
                f"see what is said of {base}",
            )
        if base.host.lower() != DEFAULT_REGISTRY:
            return "", ""
        return (
            f"{base}, which it is made from, is not on the server",
            f'to have it there first, add "{base}" to "wanted" in the stack\'s "models" section',
        )

    def _find_base_change(self, base: Name, entry: Recorded) -> str:
        """How the model that another was made from is another one now; empty where it is not."""
        stored = self.state.find_model(base)
        for action in (*self.pulls, *self.creates):
            if action.for_model == base.key and action.name.key == base.key:
                coming = None if isinstance(action, Create | RemoveName) else action.manifest
                if stored is None or coming is None or coming.digest != stored.digest:
                    return f"{base}, which it is made from, changes"
        if stored is None or entry.base == stored.digest:
            return ""
        was = entry.base[:12] or "not known"
        return f"{base}, which it was made from, is another one now: {was} → {stored.digest[:12]}"

    def _find_staleness(
        self, model: ModelSpec, stored: StoredModel, source: ModelSource, *, circular: bool
    ) -> str:
        """Why an intact model has to be created again; empty where it need not."""
        entry = self.state.find_entry(model.name)
        if entry is None or entry.made_from != source.digest:
            return f"not created from {model.gguf or model.modelfile} as it is now"
        if entry.digest != stored.digest:
            return "somebody else has put another model under this name"
        if source.base is None or circular:
            return ""
        return self._find_base_change(source.base, entry)

    def _create(self, model: ModelSpec, *, circular: bool) -> None:
        source = self.sources.get(model.name.key, ModelSource(problem="it was not read"))
        stored = self.state.find_model(model.name)
        origin = model.gguf or model.modelfile
        intact = is_intact(self.state, stored)
        if source.problem:
            if intact:
                self._add_note(model, "unchecked", f"present; {origin}: {source.problem}")
            else:
                self._refuse(
                    model,
                    f"{self._classify(stored)[1]}; {origin}: {source.problem}",
                    "name a file of the machine that runs stackmend",
                )
            return
        if stored is None or not intact:
            kind, cause = self._classify(stored)
        else:
            kind, cause = "moved", self._find_staleness(model, stored, source, circular=circular)
            if not cause:
                return
            if self.spec.update == "never":
                self._add_note(model, kind, f'{cause}; to create it again, set "update": "always"')
                return
        if source.base is not None:
            problem, remedy = self._find_base_problem(source.base, circular=circular)
            if problem:
                self._refuse(model, f"{cause}; {problem}", remedy)
                return
        self._add_finding(model, kind, cause, stored)
        self._delete_broken(model.name.key, stored, None)
        size = sum(
            size for digest, size in source.files.items() if not has_blob(self.state, digest, size)
        )
        self.creates.append(
            Create(
                subject=str(model),
                cause=cause + (f" ({format.format_size(size)} to send)" if size else ""),
                undo="" if stored else f"ollama rm {model}",
                for_model=model.name.key,
                name=model.name,
                source=source,
                bytes=size,
            )
        )

    def _add_finding(
        self, model: ModelSpec, kind: str, cause: str, stored: StoredModel | None = None
    ) -> None:
        problems = find_problems(self.state, stored) if stored is not None else ()
        evidence = tuple(map(format.format_problem, problems))
        self.findings.append(Finding(subject=str(model), kind=kind, cause=cause, evidence=evidence))

    def _add_note(self, model: ModelSpec, kind: str, cause: str) -> None:
        self.findings.append(Finding(subject=str(model), kind=kind, cause=cause, blocks=False))

    def _refuse(self, model: ModelSpec, reason: str, remedy: str) -> None:
        self.refusals.append(Refusal(subject=str(model), reason=reason, remedy=remedy))
