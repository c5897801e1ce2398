"""A compose file that corrects exactly the wrong values, and holds no secret. Pure."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from stackmend.addresses.secrecy import has_secret, is_plain, is_written, list_known, show
from stackmend.addresses.sources import Raw, Sources, find_words, iterate_variables
from stackmend.addresses.state import Edit, ImageFacts, Judgement
from stackmend.frozen import Frozen

_HEAD = (
    "# Made by stackmend: corrects addresses between services, and is removed once the project's\n"
    "# own files are right.\n"
)
#: Why a value is left.
_KEPT_OUT = "it may hold a password, and stackmend keeps those out"


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
    left: tuple[Left, ...] = ()


def make_override(
    judgements: Iterable[Judgement],
    config: Mapping[str, Any],
    files: Sources | Mapping[str, bytes],
    images: Mapping[str, ImageFacts] | None = None,
) -> Override:
    """The override that corrects what is wrong and can be corrected.

    A value is written as the project's own compose file has it, with the variables in it. Where it
    comes from an env file, ``.env`` or an image, or nobody knows from where, it is written only if
    it holds addresses alone.

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
        files: Sources | Mapping[str, bytes],
        images: Mapping[str, ImageFacts],
    ) -> None:
        self._services: Mapping[str, Mapping[str, Any]] = config.get("services") or {}
        self._project = str(config.get("name") or "")
        self._sources = Sources.make(files)
        self._images = images
        self._made: dict[str, dict[str, Any]] = {}
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
            self._add_needs(judgement)
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
        return Override(content=content, left=tuple(self._left))

    def _add_needs(self, judgement: Judgement) -> None:
        service, needs = judgement.address.place.service, judgement.needs
        for host in needs.get("extra_hosts") or ():
            hosts = self._made.setdefault(service, {}).setdefault("extra_hosts", [])
            if host not in hosts:
                hosts.append(host)
        for key, value in (needs.get("environment") or {}).items():
            if has_secret(value, raw=False):
                left = Left(subject=judgement.subject, reason=_KEPT_OUT, remedy=judgement.remedy)
                self._left.append(left)
                continue
            body = self._made.setdefault(service, {})
            body.setdefault("environment", {})[key] = _escape(value)

    def _replace_variable(self, service: str, key: str, edits: Mapping[Edit, Judgement]) -> None:
        value = self._get_value(service, key)
        corrected = apply_edits(value, edits)
        if corrected is None:
            self._leave(edits, "it stands there no more as it was read")
            return
        if not all(map(is_written, edits)):
            self._leave(edits, _KEPT_OUT)
            return
        place = next(iter(edits)).place
        raw = self._sources.find(place) if place.kind == "environment" else None
        written = self._render(raw, edits, value, corrected)
        if written is None:
            # A text of the compose file itself, without a variable, may have more in it.
            known = raw is not None and not raw.variable and raw.text.replace("$$", "$") == value
            if not known and not is_plain(key, corrected, list_known(edits, self._services)):
                self._leave(edits, _KEPT_OUT)
                return
            written = _escape(corrected)
        self._made.setdefault(service, {}).setdefault("environment", {})[key] = written

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
            if not self._is_literal(service, kind, words):
                self._leave(edits, "the command may hold a password, and stackmend keeps those out")
                return
            written = [_escape(word) for word in final]
        self._made.setdefault(service, {})[kind] = written

    def _is_literal(self, service: str, kind: str, words: Iterable[str]) -> bool:
        """Whether a compose file itself holds each word, and no variable."""
        texts = [raw.text for raw in self._sources.find_command(service, kind) or ()]
        plain = "\0".join(texts).replace("$$", "$")
        return not any(True for text in texts for _ in iterate_variables(text)) and all(
            word in plain for word in words
        )

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

    def _leave(self, edits: Mapping[Edit, Judgement], reason: str) -> None:
        for edit, judgement in edits.items():
            where = judgement.address.place.source
            change = f"{show(edit.old)} by {show(edit.new)}"
            remedy = f"replace {change} in {where}"
            self._left.append(Left(subject=judgement.subject, reason=reason, remedy=remedy))


def apply_edits(value: str, edits: Iterable[Edit]) -> str | None:
    """A value with its wrong parts replaced; ``None`` where they do not stand there."""
    for edit in sorted(edits, key=lambda edit: edit.place.start, reverse=True):
        if value[edit.place.start : edit.place.end] != edit.old:
            return None
        value = value[: edit.place.start] + edit.new + value[edit.place.end :]
    return value


def _replace(text: str, edits: Iterable[Edit], value: str) -> str | None:
    """A text of a file with the wrong parts replaced; ``None`` where one is not found once."""
    listed = list(edits)
    if text == value:
        return apply_edits(text, listed)
    for edit in listed:
        found = list(find_words(edit.old, text))
        if len(found) != 1:
            return None
        text = text[: found[0].start()] + edit.new + text[found[0].end() :]
    return text


def _escape(text: str) -> str:
    """A value as Compose reads it back."""
    return text.replace("$", "$$")
