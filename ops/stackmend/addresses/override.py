"""A compose file that corrects exactly the wrong values, and holds no secret. Pure."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from stackmend.addresses.sources import Raw, Sources
from stackmend.addresses.state import Edit, ImageFacts, Judgement
from stackmend.frozen import Frozen
from stackmend.redaction import redact_likely

_HEAD = (
    "# Made by stackmend: corrects addresses between services, and is removed once the project's\n"
    "# own files are right.\n"
)
_INTERPOLATED = re.compile(r"\$\{[^{}]*\}|\$[A-Za-z_]\w*")
_LOGIN = re.compile(r"://[^\s/]*:[^\s/]+@")


class Change(Frozen):
    """One value that the override corrects, as it may be displayed.

    :param key: what of the service: ``environment.REDIS_URL``, ``command``.
    :param old: the part that was wrong.
    :param new: what stands there instead.
    """

    service: str
    key: str
    old: str
    new: str

    def __str__(self) -> str:
        change = f"{self.old} → {self.new}" if self.old else f"+ {self.new}"
        return f"{self.service}.{self.key}: {change}"


class Left(Frozen):
    """A wrong value that is not corrected.

    :param subject: the service and the name of what holds it.
    :param reason: why not.
    :param remedy: what its owner can do.
    """

    subject: str
    reason: str
    remedy: str


class Override(Frozen):
    """A compose file to be laid over the project's own.

    :param content: YAML; empty where nothing is to be corrected.
    """

    content: bytes = b""
    changes: tuple[Change, ...] = ()
    left: tuple[Left, ...] = ()


def has_secret(text: str) -> bool:
    """Whether a text holds what may be a secret; a variable in its place is none.

    >>> has_secret("redis://:p@redis"), has_secret("redis://:${PASSWORD}@redis")
    (True, False)
    """
    plain = _INTERPOLATED.sub("", text)
    return _LOGIN.search(plain) is not None or redact_likely(plain) != plain


def make_override(
    judgements: Iterable[Judgement],
    config: Mapping[str, Any],
    files: Mapping[str, bytes],
    images: Mapping[str, ImageFacts] | None = None,
) -> Override:
    """The override that corrects what is wrong and can be corrected.

    A value keeps the variables that the project's own file has in it. Where a value holds what may
    be a secret, it is written as that file has it, or not at all: what comes from an env file or
    ``.env`` stays there.

    :param judgements: as :func:`stackmend.addresses.classify` made them; only wrong ones count.
    :param config: what ``docker compose config --format json`` gives, ``$$`` unescaped.
    :param files: the content of the project's files, by their path in it.
    :param images: what images bring, as for :func:`stackmend.addresses.read`.
    """
    return _Maker(config, files, images or {}).make(judgements)


class _Maker:
    def __init__(
        self,
        config: Mapping[str, Any],
        files: Mapping[str, bytes],
        images: Mapping[str, ImageFacts],
    ) -> None:
        self._services: Mapping[str, Mapping[str, Any]] = config.get("services") or {}
        self._project = str(config.get("name") or "")
        self._sources = Sources(files)
        self._images = images
        self._made: dict[str, dict[str, Any]] = {}
        self._changes: list[Change] = []
        self._left: list[Left] = []

    def make(self, judgements: Iterable[Judgement]) -> Override:
        edits: dict[tuple[str, str, str], dict[Edit, Judgement]] = {}
        for judgement in judgements:
            if not judgement.correctable:
                continue
            service = judgement.address.place.service
            for edit in judgement.edits:
                kind: str = "environment" if edit.place.kind == "image" else edit.place.kind
                # A command is one value, however many of its words are wrong.
                key = edit.place.key if kind in ("environment", "file") else ""
                edits.setdefault((service, kind, key), {})[edit] = judgement
            self._add_needs(service, judgement.needs)
        for (service, kind, key), of in edits.items():
            if kind == "environment":
                self._replace_variable(service, key, of)
            elif kind == "file":
                self._leave(of, "it stands in a file that the service mounts")
            else:
                self._replace_command(service, kind, of)
        content = b""
        if self._made:
            services = {name: self._made[name] for name in sorted(self._made)}
            content = _HEAD.encode() + yaml.safe_dump(
                {"services": services}, allow_unicode=True, width=1000
            ).encode("utf-8", "surrogateescape")
        return Override(content=content, changes=tuple(self._changes), left=tuple(self._left))

    def _add_needs(self, service: str, needs: Mapping[str, Any]) -> None:
        body = self._made.setdefault(service, {}) if needs else {}
        for host in needs.get("extra_hosts") or ():
            hosts = body.setdefault("extra_hosts", [])
            if host not in hosts:
                hosts.append(host)
                self._changes.append(Change(service=service, key="extra_hosts", old="", new=host))
        for key, value in (needs.get("environment") or {}).items():
            environment = body.setdefault("environment", {})
            if environment.get(key) != _escape(value):
                environment[key] = _escape(value)
                old = str((self._services[service].get("environment") or {}).get(key) or "")
                self._changes.append(
                    Change(service=service, key=f"environment.{key}", old=old, new=value)
                )

    def _replace_variable(self, service: str, key: str, edits: Mapping[Edit, Judgement]) -> None:
        value = self._get_value(service, key)
        corrected = apply_edits(value, edits)
        if corrected is None:
            self._leave(edits, "it stands there no more as it was read")
            return
        place = next(iter(edits)).place
        raw = self._sources.find(place) if place.kind == "environment" else None
        written = self._render(raw, edits, value, corrected)
        if written is None:
            if has_secret(corrected):
                self._leave(edits, "it holds a password, and stackmend keeps those out of its file")
                return
            written = _escape(corrected)
        self._made.setdefault(service, {}).setdefault("environment", {})[key] = written
        self._note(service, f"environment.{key}", edits)

    def _get_value(self, service: str, key: str) -> str:
        body = self._services[service]
        value = (body.get("environment") or {}).get(key)
        if value is None:
            image = str(body.get("image") or f"{self._project}-{service}")
            value = self._images.get(image, ImageFacts()).env.get(key, "")
        return str(value)

    def _render(
        self, raw: Raw | None, edits: Iterable[Edit], value: str, corrected: str
    ) -> str | None:
        """The text of the project's own file with the wrong parts replaced, if it means that."""
        if raw is None or raw.variable or self._sources.resolve(raw) != value:
            return None
        text = _replace(raw.text, edits, value)
        if text is None or self._sources.resolve(raw._replace(text=text)) != corrected:
            return None
        return text

    def _replace_command(self, service: str, kind: str, edits: Mapping[Edit, Judgement]) -> None:
        words = [str(word) for word in self._services[service].get(kind) or ()]
        by_index: dict[int, list[Edit]] = {}
        for edit in edits:
            by_index.setdefault(int(edit.place.key), []).append(edit)
        corrected = [apply_edits(word, by_index.get(index, ())) for index, word in enumerate(words)]
        if None in corrected or not words:
            self._leave(edits, "it stands there no more as it was read")
            return
        final = [word for word in corrected if word is not None]
        written = self._render_command(service, kind, by_index, words, final)
        if written is None:
            if any(map(has_secret, final)) or has_secret(" ".join(final)):
                self._leave(edits, "the command holds a password, and stackmend keeps those out")
                return
            written = [_escape(word) for word in final]
        self._made.setdefault(service, {})[kind] = written
        self._note(service, kind, edits)

    def _render_command(
        self,
        service: str,
        kind: str,
        edits: Mapping[int, Sequence[Edit]],
        words: Sequence[str],
        corrected: Sequence[str],
    ) -> str | list[str] | None:
        raws = self._sources.find_command(service, kind)
        if raws is None:
            return None
        if len(raws) == len(words):
            texts = [
                self._render(raw, edits.get(index, ()), words[index], corrected[index])
                for index, raw in enumerate(raws)
            ]
            if None not in texts:
                return [text for text in texts if text is not None]
        if len(raws) != 1:
            return None
        text = _replace(raws[0].text, [edit for of in edits.values() for edit in of], "")
        if text is None:
            return None
        try:
            before = shlex.split(self._sources.resolve(raws[0]) or "")
            after = shlex.split(self._sources.resolve(raws[0]._replace(text=text)) or "")
        except ValueError:
            return None
        return text if (before, after) == ([*words], [*corrected]) else None

    def _note(self, service: str, key: str, edits: Iterable[Edit]) -> None:
        for edit in edits:
            old, new = (redact_login(text) for text in (edit.old, edit.new))
            self._changes.append(Change(service=service, key=key, old=old, new=new))

    def _leave(self, edits: Mapping[Edit, Judgement], reason: str) -> None:
        for edit, judgement in edits.items():
            where = judgement.address.place.source
            change = f"{redact_login(edit.old)} by {redact_login(edit.new)}"
            remedy = f"replace {change} in {where}"
            self._left.append(Left(subject=judgement.subject, reason=reason, remedy=remedy))


def apply_edits(value: str, edits: Iterable[Edit]) -> str | None:
    """A value with its wrong parts replaced; ``None`` where they do not stand there."""
    for edit in sorted(edits, key=lambda edit: edit.place.start, reverse=True):
        if value[edit.place.start : edit.place.end] != edit.old:
            return None
        value = value[: edit.place.start] + edit.new + value[edit.place.end :]
    return value


def redact_login(text: str) -> str:
    """A text of an address without user and password."""
    return re.sub(r"://[^\s/]*@", "://***@", text)


def _replace(text: str, edits: Iterable[Edit], value: str) -> str | None:
    """A text of a file with the wrong parts replaced; ``None`` where one is not found once."""
    listed = list(edits)
    if text == value:
        return apply_edits(text, listed)
    for edit in listed:
        pattern = rf"(?<![\w.-]){re.escape(edit.old)}(?![\w.-])"
        if not edit.old or len(re.findall(pattern, text)) != 1:
            return None
        text = re.sub(pattern, lambda _, new=edit.new: new, text)  # type: ignore[misc]
    return text


def _escape(text: str) -> str:
    """A value as Compose reads it back."""
    return text.replace("$", "$$")
