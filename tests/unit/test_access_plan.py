"""What is decided about the way into a host, from what was read and what is wanted alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.access.admission import find_obstacles
from stackmend.access.plan import DropKeys, Plan
from stackmend.access.state import HostAccess
from tests.unit.access_world import account, desired, finished, make_plan, new, public, sshd


def verbs(plan: Plan) -> list[str]:
    return [action.verb for action in plan.actions]


def reasons(plan: Plan) -> str:
    return "; ".join(refusal.reason for refusal in plan.refusals)


def test_a_new_machine_gets_all_of_it_the_keys_after_sudo_and_sshd_last() -> None:
    # A run that ends between two steps comes in as the user the next time, and then needs sudo.
    assert verbs(make_plan(new())) == ["add", "permit", "trust", "set"]
    assert verbs(make_plan(new(tools=("visudo",)))) == ["install", "add", "permit", "trust", "set"]


def test_nothing_is_done_where_all_is_as_wanted() -> None:
    assert make_plan(finished()).empty
    assert make_plan(finished(), provable=False).empty, "what is done already needs no proof"


def test_every_action_says_why_and_how_it_is_taken_back() -> None:
    for action in make_plan(new()).actions:
        assert action.cause
        assert action.undo
        assert not action.destructive


@pytest.mark.parametrize(
    ("changes", "verb"),
    [
        (
            {"account": None, "rules": (), "keys": (), "keys_file": "%h/.ssh/authorized_keys"},
            ["add", "permit", "trust"],
        ),
        ({"keys": (public("other"),)}, ["trust"]),
        ({"keys": (f"# {public()}",)}, ["trust"]),
        ({"rules": ("(ALL : ALL) ALL",)}, ["permit"]),
        ({"rules": ("(ALL) NOPASSWD: ALL", "(ALL) ALL")}, ["permit"]),
        ({"rules": ("(root) NOPASSWD: /bin/ls",)}, ["permit"]),
        ({"sshd": sshd()}, ["set"]),
        ({"sshd": sshd(closed=True, kbdinteractiveauthentication="yes")}, ["set"]),
        ({"armed": "1a2b3c4d"}, ["set"]),
    ],
)
def test_only_what_differs_is_done(changes: dict[str, Any], verb: list[str]) -> None:
    assert verbs(make_plan(finished(**changes))) == verb


def test_a_key_with_options_before_it_is_there() -> None:
    assert make_plan(finished(keys=(f'from="10.0.0.0/8",no-pty {public()}',))).empty


def test_keys_of_others_go_only_when_told() -> None:
    state = finished(keys=(public(), public("other")))
    assert make_plan(state).empty
    (drop,) = make_plan(state, desired(exclusive_keys=True)).actions
    assert isinstance(drop, DropKeys)
    assert drop.destructive
    assert drop.keys == (public("other"),)


def test_what_is_not_wanted_is_left_alone() -> None:
    assert make_plan(finished(sshd=sshd()), desired(password_login=None)).empty
    assert make_plan(finished(rules=()), desired(sudo=False)).empty
    assert verbs(make_plan(finished(), desired(password_login=True))) == ["set"]


def test_root_needs_no_sudo() -> None:
    root = account(name="root", uid=0, home="/root")
    state = finished(account=root, rules=(), keys_file="/root/.ssh/authorized_keys", tools=())
    assert make_plan(state, desired(user="root")).empty
    shut = state.model_copy(update={"sshd": sshd(closed=True, permitrootlogin="no")})
    assert "PermitRootLogin is no" in reasons(make_plan(shut, desired(user="root")))


@pytest.mark.parametrize("key", ["allowusers", "denyusers", "allowgroups", "denygroups"])
@pytest.mark.parametrize("hardened", [True, False])
def test_a_user_that_is_shut_out_is_refused_and_nothing_is_done(key: str, hardened: bool) -> None:
    value = "root" if key.startswith("allow") else "ops"
    for state in (new(sshd=sshd(**{key: value})), finished(sshd=sshd(closed=True, **{key: value}))):
        plan = make_plan(state, desired(password_login=False if hardened else None))
        assert "sshd would not let ops in" in reasons(plan)
        assert not plan.actions


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"pubkeyauthentication": "no"}, "sshd accepts no keys"),
        ({"allowusers": "ops@198.51.100.0/24"}, "does not name it"),
        ({"allowusers": "!ops"}, "does not name it"),
        ({"denyusers": "o?s@192.0.2.*"}, "names it"),
    ],
)
def test_why_a_user_is_shut_out(settings: dict[str, str], reason: str) -> None:
    assert reason in reasons(make_plan(new(sshd=sshd(**settings))))


@pytest.mark.parametrize(
    "settings",
    [
        {"allowusers": "ops"},
        {"allowusers": "o*@192.0.2.0/24"},
        {"allowusers": "ops@192.0.2.*"},
        {"denyusers": "root"},
        {"denyusers": "ops@198.51.100.7"},
        {"allowgroups": "wheel,ops"},
    ],
)
def test_a_user_that_is_let_in(settings: dict[str, str]) -> None:
    values = {name: value.replace(",", " ") for name, value in settings.items()}
    state = new(sshd=sshd(**values))
    state = state.model_copy(
        update={
            "sshd": state.sshd
            and state.sshd.model_copy(
                update={
                    "settings": {
                        **state.sshd.settings,
                        **{name: tuple(value.split()) for name, value in values.items()},
                    }
                }
            )
        }
    )
    assert not make_plan(state).refusals


@pytest.mark.parametrize("file", ["none", "/etc/ssh/keys/ops", "/home/opsen/.ssh/authorized_keys"])
def test_keys_outside_of_the_home_are_refused(file: str) -> None:
    assert "AuthorizedKeysFile is" in reasons(make_plan(finished(keys_file=file)))


def test_a_login_shell_that_is_none_is_refused() -> None:
    assert "/usr/sbin/nologin" in reasons(
        make_plan(finished(account=account(shell="/usr/sbin/nologin")))
    )


def test_what_cannot_be_proven_is_not_done() -> None:
    assert "no private key" in reasons(make_plan(new(), provable=False))
    exclusive = desired(password_login=None, exclusive_keys=True)
    state = finished(keys=(public(), public("other")))
    assert "no private key" in reasons(make_plan(state, exclusive, provable=False))
    # A user and its keys are added even where the login cannot be tried: that shuts nobody out.
    assert not make_plan(new(), desired(password_login=None), provable=False).refusals


def test_a_broken_configuration_is_refused_where_sshd_is_to_change_and_told_elsewhere() -> None:
    state = new(sshd=sshd(problem="line 3: Bad configuration option"))
    assert "line 3: Bad configuration option" in reasons(make_plan(state))
    plan = make_plan(state, desired(password_login=None))
    assert not plan.refusals
    assert [finding.evidence for finding in plan.findings] == [
        ("line 3: Bad configuration option",)
    ]


@pytest.mark.parametrize(
    ("methods", "refused"),
    [
        (("any",), False),
        (("publickey",), False),
        (("publickey,password",), True),
        (("publickey,keyboard-interactive:pam",), True),
        (("publickey,password", "publickey"), False),
    ],
)
def test_methods_that_need_a_password(methods: tuple[str, ...], refused: bool) -> None:
    state = new()
    assert state.sshd is not None
    settings = {**state.sshd.settings, "authenticationmethods": methods}
    state = state.model_copy(update={"sshd": state.sshd.model_copy(update={"settings": settings})})
    assert ("asks for a password as well" in reasons(make_plan(state))) is refused


def test_without_root_nothing_is_known_and_nothing_done() -> None:
    plan = make_plan(new(root=False))
    assert "neither root" in reasons(plan)
    assert not plan.actions


def test_sudo_without_a_package_manager() -> None:
    assert "none of the host's package managers" in reasons(make_plan(new(tools=(), installer="")))


@given(
    st.builds(
        finished,
        account=st.none() | st.just(account()),
        rules=st.just(()) | st.just(("(ALL) NOPASSWD: ALL",)),
        keys=st.lists(st.sampled_from([public(), public("other"), "# x"]), max_size=3).map(tuple),
        sshd=st.none() | st.builds(sshd, closed=st.booleans(), problem=st.sampled_from(["", "x"])),
        armed=st.sampled_from(["", "1a2b3c4d"]),
        root=st.booleans(),
    ),
    st.booleans(),
    st.sampled_from([None, True, False]),
    st.booleans(),
)
def test_a_plan_never_acts_and_refuses_at_once(
    state: HostAccess, exclusive: bool, passwords: bool | None, provable: bool
) -> None:
    spec = desired(exclusive_keys=exclusive, password_login=passwords)
    plan = make_plan(state, spec, provable=provable)
    assert not (plan.actions and plan.refusals)
    if not provable:
        assert not {"drop", "set"} & set(verbs(plan))
    assert "drop" not in verbs(plan) or exclusive
    assert "set" not in verbs(plan) or passwords is not None


def test_obstacles_are_told_each() -> None:
    obstacles = list(
        find_obstacles(
            "ops",
            account(shell="/bin/false"),
            sshd(denyusers="ops", pubkeyauthentication="no"),
            "none",
            "192.0.2.7",
        )
    )
    assert len(obstacles) == 4
