"""The same corrections as a patch of the user's own files, for ``git apply``. Pure."""

import difflib
import re
from collections.abc import Iterable, Mapping

import yaml

from stackmend.addresses.override import Left, has_secret, redact_login
from stackmend.addresses.sources import Sources, iterate_variables
from stackmend.addresses.state import Edit, Judgement
from stackmend.frozen import Frozen


class Patch(Frozen):
    """A patch of a project's own files.

    :param text: a unified diff, relative to the project's directory.
    :param left: what it does not correct.
    """

    text: str = ""
    left: tuple[Left, ...] = ()

    def __str__(self) -> str:
        return self.text


def make_patch(judgements: Iterable[Judgement], files: Mapping[str, bytes]) -> Patch:
    """The patch that corrects what is wrong where it comes from.

    A line that holds what may be a secret is in no patch, not even beside a change: what is to be
    replaced there is said instead.

    :param judgements: as :func:`stackmend.addresses.classify` made them, the right ones among them:
        what is right for one service and wrong for another is not changed for both.
    :param files: the content of the project's files, by their path in it.
    """
    return _Maker(files).make(tuple(judgements))


class _Maker:
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._sources = Sources(files)
        # By file: where, up to where, and what belongs there.
        self._edits: dict[str, dict[tuple[int, int], str]] = {}
        self._owners: dict[tuple[str, int, int], list[tuple[Judgement, Edit | None]]] = {}
        self._left: list[Left] = []

    def make(self, judgements: tuple[Judgement, ...]) -> Patch:
        for judgement in judgements:
            if not judgement.correctable:
                continue
            for edit in judgement.edits:
                span = self._sources.find_span(edit.place, edit.old)
                if span is None:
                    self._leave(judgement, edit, "where it comes from is not sure")
                elif not self._is_own(judgements, edit, span):
                    self._leave(judgement, edit, f"others use {span[0]} there as it stands")
                else:
                    self._add(span, edit.new, judgement, edit)
            self._add_needs(judgement)
        text = "".join(self._format(path) for path in sorted(self._edits))
        return Patch(text=text, left=tuple(self._left))

    def _is_own(
        self, judgements: Iterable[Judgement], edit: Edit, span: tuple[str, int, int]
    ) -> bool:
        """Whether all that use a text of a file are to have it replaced."""
        path, start, end = span
        corrected: set[tuple[str, int]] = set()
        for other in judgements:
            same = [item for item in other.edits if item.old == edit.old and item.new == edit.new]
            address = other.address
            if other.status == "wrong" and same:
                for item in same:
                    raw = self._sources.find(item.place)
                    if raw is not None and self._sources.find_span(item.place, item.old) == span:
                        corrected.add((raw.file, raw.start))
            elif address.text == edit.old and (
                self._sources.find_span(address.place, address.text) == span
            ):
                return False
        if path != ".env":
            return True
        # A variable may also be a port that is published, or part of another service's settings.
        text = self._sources.read_text(path)
        line = text[text.rfind("\n", 0, start) + 1 : end]
        name = re.split(r"[\s=]", line.strip().removeprefix("export ").strip(), maxsplit=1)[0]
        uses = sum(
            list(iterate_variables(self._sources.read_text(other))).count(name)
            for other in self._sources.files
            if other.endswith((".yaml", ".yml"))
        )
        return uses <= len(corrected)

    def _add(
        self, span: tuple[str, int, int], new: str, judgement: Judgement, edit: Edit | None
    ) -> None:
        path, start, end = span
        edits = self._edits.setdefault(path, {})
        if edits.setdefault((start, end), new) != new:
            self._leave(judgement, edit, f"others need another value in {path}")
            return
        self._owners.setdefault((path, start, end), []).append((judgement, edit))

    def _add_needs(self, judgement: Judgement) -> None:
        service = judgement.address.place.service
        for host in judgement.needs.get("extra_hosts") or ():
            if not self._add_entry(judgement, service, "extra_hosts", "", host):
                self._leave(judgement, None, "the service's section is written in another way")
        for key, value in (judgement.needs.get("environment") or {}).items():
            place = judgement.address.place.model_copy(
                update={"kind": "environment", "key": key, "start": 0, "end": 0}
            )
            raw = self._sources.find(place)
            if raw is not None and not raw.variable and "$" not in raw.text and raw.text:
                span = self._sources.find_span(place, raw.text)
                if span is not None:
                    self._add(span, value, judgement, None)
                    continue
            if raw is not None or not self._add_entry(
                judgement, service, "environment", key, value
            ):
                self._leave(judgement, None, f"{key} comes from elsewhere")

    def _add_entry(
        self, judgement: Judgement, service: str, section: str, key: str, value: str
    ) -> bool:
        """Add an entry to a section of a service, or the section with it."""
        found = self._sources.find_body(service, section)
        if found is None:
            return False
        path, body, node = found
        text = self._sources.read_text(path)
        quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$") + '"'
        entry = f"{key}: {quoted}" if key else f"- {quoted}"
        if node is None:
            at = body.value[0][0].start_mark
            pad = " " * at.column
            new = f"{section}:\n{pad}  {entry}\n{pad}"
        else:
            if node.flow_style or not node.value:
                return False
            is_list = isinstance(node, yaml.SequenceNode)
            first = node.value[0]
            at = first.start_mark if is_list else first[0].start_mark
            if is_list and key:
                entry = f"- {key}={value.replace('$', '$$')}"
            elif not is_list and not key:
                name, _, address = value.partition(":")
                entry = f"{name}: {address}"
            start = text.rfind("\n", 0, at.index) + 1
            pad = re.match("[ \t]*", text[start:])[0]  # type: ignore[index]
            new = f"{entry}\n{pad}"
            index = start + len(pad)
            self._put(path, index, new, judgement)
            return True
        self._put(path, at.index, new, judgement)
        return True

    def _put(self, path: str, at: int, new: str, judgement: Judgement) -> None:
        edits = self._edits.setdefault(path, {})
        before = edits.get((at, at), "")
        if new not in before:
            edits[at, at] = before + new
        self._owners.setdefault((path, at, at), []).append((judgement, None))

    def _format(self, path: str) -> str:
        text = self._sources.read_text(path)
        edits = dict(self._edits[path])
        for context in (3, 1):
            diff = _make_diff(path, text, edits, context)
            if not _has_any_secret(diff):
                return diff
        # One by one: what stands beside a secret is said instead.
        for span in list(edits):
            if _has_any_secret(_make_diff(path, text, {span: edits[span]}, 1)):
                del edits[span]
                line = text.count("\n", 0, span[0]) + 1
                for judgement, edit in self._owners.get((path, *span), ()):
                    self._leave(
                        judgement, edit, "its line holds a password", where=f"{path}:{line}"
                    )
        diff = _make_diff(path, text, edits, 1) if edits else ""
        return "" if _has_any_secret(diff) else diff

    def _leave(self, judgement: Judgement, edit: Edit | None, reason: str, where: str = "") -> None:
        where = where or judgement.address.place.source
        if edit is None:
            remedy = judgement.remedy
        elif edit.new:
            remedy = f"replace {redact_login(edit.old)} by {redact_login(edit.new)} in {where}"
        else:
            remedy = f"remove {edit.old} in {where}"
        left = Left(subject=judgement.subject, reason=reason, remedy=remedy)
        if left not in self._left:
            self._left.append(left)


def _make_diff(path: str, text: str, edits: Mapping[tuple[int, int], str], context: int) -> str:
    changed = text
    for (start, end), new in sorted(edits.items(), reverse=True):
        changed = changed[:start] + new + changed[end:]
    before, after = (item.split("\n") for item in (text, changed))
    old_lines, new_lines = (
        [f"{line}\n" for line in listed[:-1]] + ([listed[-1]] if listed[-1] else [])
        for listed in (before, after)
    )
    tab = "\t" if " " in path else ""
    out = []
    for line in difflib.unified_diff(
        old_lines, new_lines, f"a/{path}{tab}", f"b/{path}{tab}", n=context
    ):
        out.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    return "".join(out)


def _has_any_secret(diff: str) -> bool:
    return any(
        has_secret(line[1:])
        for line in diff.splitlines()
        if line[:1] in " +-" and line[:3] not in ("+++", "---")
    )
