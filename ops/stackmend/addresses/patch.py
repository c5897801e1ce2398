"""The same corrections as a patch of the user's own files, for ``git apply``. Pure."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import yaml

from stackmend.addresses.override import Left
from stackmend.addresses.secrecy import (
    has_secret,
    is_plain_line,
    is_written,
    list_known,
    show,
)
from stackmend.addresses.sources import Sources, Span
from stackmend.addresses.state import Edit, Judgement
from stackmend.frozen import Frozen

#: Lines that stand around a change.
CONTEXT = 3


class Patch(Frozen):
    """A patch of a project's own files.

    :param text: a unified diff, relative to the project's directory.
    :param left: what it does not correct.
    """

    text: str = ""
    left: tuple[Left, ...] = ()

    def __str__(self) -> str:
        return self.text


def make_patch(
    judgements: Iterable[Judgement],
    files: Sources | Mapping[str, bytes],
    redact: Callable[[str], str] = str,
) -> Patch:
    """The patch that corrects what is wrong where it comes from.

    A line that holds what may be a secret is in no patch, not even beside a change; of an env file
    a line is only if it holds addresses alone, or a switch. What is to be replaced there is left.

    :param judgements: as :func:`stackmend.addresses.classify` made them, the right ones among them:
        what is right for one service and wrong for another is not changed for both.
    :param files: the content of the project's files, by their path in it.
    :param redact: what a report makes of a line; one that it changes is in no patch, which would
        not apply then.
    """
    return _Maker(files, redact).make(tuple(judgements))


class _Maker:
    def __init__(self, files: Sources | Mapping[str, bytes], redact: Callable[[str], str]) -> None:
        self._sources = Sources.make(files)
        self._redact = redact
        # By file: where, up to where, and what belongs there.
        self._edits: dict[str, dict[tuple[int, int], str]] = {}
        self._owners: dict[tuple[str, int, int], list[tuple[Judgement, Edit | None]]] = {}
        self._left: list[Left] = []
        # What belongs at a place, for each that uses it; ``None`` is what stands there.
        self._desired: dict[Span, set[str | None]] = {}
        self._corrected: dict[Span, set[tuple[str, int]]] = {}
        self._known: frozenset[str] = frozenset()

    def make(self, judgements: tuple[Judgement, ...]) -> Patch:
        for judgement in judgements:
            self._note(judgement)
        edits = [edit for judgement in judgements for edit in judgement.edits]
        targets = [judgement.address.target for judgement in judgements]
        self._known = list_known(edits, targets)
        for judgement in judgements:
            if not judgement.correctable:
                continue
            for edit in judgement.edits:
                span = self._sources.find_span(edit.place, edit.old)
                if span is None:
                    self._leave(judgement, edit, "where it comes from is not sure")
                elif setting := self._sources.find_setting(*span[:2]):
                    self._leave(judgement, edit, "the inventory sets it", where=setting)
                elif not is_written(edit):
                    self._leave(judgement, edit, "it may hold a password")
                elif not self._is_own(span):
                    self._leave(judgement, edit, f"others use {span[0]} there as it stands")
                else:
                    self._add(span, edit.new, judgement, edit)
            self._add_needs(judgement)
        text = "".join(self._format(path) for path in sorted(self._edits))
        return Patch(text=text, left=tuple(self._left))

    def _note(self, judgement: Judgement) -> None:
        """Note what one that uses a text of a file would have there."""
        edited = set()
        for edit in judgement.edits if judgement.status == "wrong" else ():
            raw, span = self._sources.find(edit.place), None
            if raw is not None or edit.place.kind == "file":
                span = self._sources.find_span(edit.place, edit.old)
            if span is not None:
                edited.add(span)
                self._desired.setdefault(span, set()).add(edit.new)
                if raw is not None:
                    self._corrected.setdefault(span, set()).add((raw.file, raw.start))
        address = judgement.address
        span = self._sources.find_span(address.place, address.text)
        if span is not None and span not in edited:
            self._desired.setdefault(span, set()).add(None)

    def _is_own(self, span: Span) -> bool:
        """Whether all that use a text of a file are to have it replaced."""
        if len(self._desired.get(span, ())) > 1:
            return False
        path, start, end = span
        if path != ".env":
            return True
        # A variable may also be a port that is published, or part of another service's settings.
        text = self._sources.read_text(path)
        line = text[text.rfind("\n", 0, start) + 1 : end]
        name = re.split(r"[\s=]", line.strip().removeprefix("export ").strip(), maxsplit=1)[0]
        return self._sources.uses[name] <= len(self._corrected.get(span, ()))

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
        text = self._sources.read_own(path)
        lines = text.split("\n")
        by_line: dict[int, list[tuple[int, int]]] = {}
        for span in self._edits[path]:
            by_line.setdefault(self._sources.find_line(path, span[0]), []).append(span)
        changed: dict[int, list[str]] = {}
        # From the last one up: a change needs a line behind it that may be displayed.
        for index in sorted(by_line, reverse=True):
            new = self._replace(path, text, lines[index], by_line[index])
            following = lines[index + 1 : index + 2] if index + 1 not in changed else []
            if following == [""] and index + 2 == len(lines):
                following = []
            if all(self._is_displayed(path, line) for line in (lines[index], *new, *following)):
                changed[index] = new
                continue
            for span in by_line[index]:
                for judgement, edit in self._owners.get((path, *span), ()):
                    where = f"{path}:{index + 1}"
                    self._leave(judgement, edit, "a line there may hold a password", where=where)
        if not changed:
            return ""
        tab = "\t" if " " in path else ""
        head = f"--- a/{path}{tab}\n+++ b/{path}{tab}\n"
        return head + "".join(_make_hunks(lines, changed, self._list_context(path, lines, changed)))

    def _replace(self, path: str, text: str, line: str, spans: list[tuple[int, int]]) -> list[str]:
        """The lines that belong in the place of one."""
        first = text.rfind("\n", 0, spans[0][0]) + 1
        for start, end in sorted(spans, reverse=True):
            new = self._edits[path][start, end]
            line = line[: start - first] + new + line[end - first :]
        return line.split("\n")

    def _is_displayed(self, path: str, line: str) -> bool:
        """Whether a line may be displayed, as it stands."""
        if self._redact(line) != line:
            return False
        if path.endswith((".yaml", ".yml")) and self._sources.get_services(path):
            return not has_secret(line)
        if path.endswith((".yaml", ".yml", ".json", ".toml", ".ini", ".cfg")):
            return not has_secret(line, raw=False)
        return is_plain_line(line, self._known)

    def _list_context(
        self, path: str, lines: Sequence[str], changed: Mapping[int, list[str]]
    ) -> set[int]:
        """The lines that are displayed beside those that change."""
        found: set[int] = set()
        for index in changed:
            for step in (1, -1):
                for number in range(1, CONTEXT + 1):
                    beside = index + step * number
                    if not 0 <= beside < len(lines) or (
                        beside not in changed and not self._is_displayed(path, lines[beside])
                    ):
                        break
                    found.add(beside)
        return found - {*changed}

    def _leave(self, judgement: Judgement, edit: Edit | None, reason: str, where: str = "") -> None:
        where = where or judgement.address.place.source
        if edit is None:
            remedy = judgement.remedy
        elif edit.new:
            remedy = f"replace {show(edit.old)} by {show(edit.new)} in {where}"
        else:
            remedy = f"remove {show(edit.old)} in {where}"
        left = Left(subject=judgement.subject, reason=reason, remedy=remedy)
        if left not in self._left:
            self._left.append(left)


def _make_hunks(
    lines: Sequence[str], changed: Mapping[int, list[str]], context: Iterable[int]
) -> Iterator[str]:
    """The hunks of a unified diff.

    :param changed: what belongs in the place of lines, by their index.
    :param context: the lines that are displayed as well.
    """
    last = len(lines) - 1
    # What follows the last newline is no line where it is empty.
    listed = [n for n in sorted({*changed, *context}) if n < last or lines[n] or n in changed]
    added = 0
    while listed:
        size = next((n for n in range(1, len(listed)) if listed[n] != listed[0] + n), len(listed))
        hunk, listed = listed[:size], listed[size:]
        out, old, new = [], 0, 0
        for index in hunk:
            after = changed.get(index, [lines[index]])
            kept = after[-1] == lines[index]
            end = "" if index < last else "\n\\ No newline at end of file"
            if not kept:
                out.append(f"-{lines[index]}{end}\n")
            for number, line in enumerate(after[:-1] if kept else after, 1):
                out.append(f"+{line}{end if not kept and number == len(after) else ''}\n")
            if kept:
                out.append(f" {lines[index]}{end}\n")
            old, new = old + 1, new + len(after)
        yield f"@@ -{hunk[0] + 1},{old} +{hunk[0] + 1 + added},{new} @@\n" + "".join(out)
        added += new - old
