"""What Compose is asked with: all that it reads, and of a large project nothing else."""

from __future__ import annotations

import pytest

from stackmend.compose.closure import find_closure
from stackmend.compose.source import File, Source

DATA = {f"data/{number}.bin": "x" for number in range(3)}


def needed(files: dict[str, str]) -> set[str]:
    source = Source({path: File(0o644, text.encode()) for path, text in {**files, **DATA}.items()})
    return set(find_closure(source).files)


@pytest.mark.parametrize(
    ("files", "more"),
    [
        ({"compose.yaml": "services: {a: {image: x}}"}, set()),
        ({"compose.yaml": "services: {a: {env_file: conf/a.env}}", "conf/a.env": ""}, set()),
        (
            {
                "compose.yaml": "services: {a: {env_file: [a.env, {path: ./b.env, required: no}], "
                "label_file: l/labels}}",
                "a.env": "",
                "b.env": "",
                "l/labels": "",
                ".env": "A=1",
                "compose.override.yml": "services: {a: {env_file: c.env}}",
                "c.env": "",
            },
            set(),
        ),
        (
            {
                "compose.yaml": "include: [sub/one.yaml, {path: [two.yaml], env_file: two.env}]",
                "sub/one.yaml": "services: {a: {extends: {file: base.yml, service: b}}}",
                "sub/base.yml": "services: {b: {env_file: deep/x.env}}",
                "sub/deep/x.env": "",
                "sub/.env": "",
                "two.yaml": "services: {}",
                "two.env": "",
            },
            set(),
        ),
        # What cannot be told from here
        ({"compose.yaml": "services: {a: {env_file: '${NAME}.env'}}", "a.env": ""}, {*DATA}),
        ({"compose.yaml": "services: {a: {extends: {file: 7}}}"}, {*DATA}),
        ({"compose.yaml": "services: {}", ".env": "COMPOSE_FILE=other.yaml"}, {*DATA}),
        ({"compose.yaml": "include: [a.yaml]", "a.yaml": "["}, {*DATA}),
    ],
)
def test_what_compose_reads_goes(files: dict[str, str], more: set[str]) -> None:
    assert needed(files) == {*files, *more}
