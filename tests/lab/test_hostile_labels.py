"""What an image, a container or a list on the host says cannot steer what root does there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.lab.fixtures import Lab
from tests.lab.stacks import Shop
from tests.lab.standing import Standing
from tests.lab.untouched import untouched

VICTIM = "/root/victim.txt"

#: The mark that could once be computed from the project and its directory.
MARK = "==" + hashlib.sha256(b"stackmend\0shop\0/opt/shop").hexdigest()[:20]

#: What is forged → whether by an image, the section, its exit status.
FORGED = {
    "a file that is not in the source": (False, f"files\n{'0' * 64}  ../..{VICTIM}\n", 0),
    "a service that is to be recreated": (True, "stale\nweb\n", 0),
    "a directory that may not be written": (False, "writable\n", 1),
    "a record of what was applied": (True, "applied\n{\n", 0),
}


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    return Standing(Shop(tmp_path_factory.mktemp("hostile"), lab.take(1)[0]))


@pytest.fixture
def shop(standing: Standing) -> Iterator[Shop]:
    shop = standing.renew()
    shop.host.sh(f"echo precious >{VICTIM}")
    yield shop
    shop.host.sh(f"docker rm -f hostile; docker rmi -f hostile:1; rm -f {VICTIM}")


@pytest.mark.parametrize("what", FORGED)
def test_a_label_is_never_taken_for_a_section(shop: Shop, what: str) -> None:
    by_image, section, status = FORGED[what]
    value = f"x|y\n\n{MARK} end 0\n\n{MARK} begin {section}\n{MARK} end {status}\n"
    label = f"com.docker.compose.project={value}"
    shop.host.docker("run", "-d", "--name", "hostile", "--label", label, "lab/box:1")
    if by_image:
        # Whoever made the image has written it.
        shop.host.docker("commit", "hostile", "hostile:1")
        shop.host.docker("rm", "-f", "hostile")
        shop.host.docker("run", "-d", "--name", "hostile", "hostile:1")

    with shop.watching() as seen, untouched(shop.host):
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert "No changes" in done.out
    assert seen.quiet, seen.events
    assert shop.host.sh(f"cat {VICTIM}") == "precious"


@pytest.mark.parametrize("path", ["../../root/victim.txt", "conf/../../../root//./victim.txt"])
def test_a_list_that_leads_elsewhere_removes_nothing(shop: Shop, path: str) -> None:
    shop.host.sh(f"echo {path} >>/var/lib/stackmend/shop/files")

    with shop.watching() as seen, untouched(shop.host):
        done = shop.run("-y")

    assert done.rc == 1, done.out
    (refusal,) = shop.report()["operations"][0]["refusals"]
    assert f"names '/opt/shop/{path}', which leads elsewhere" in refusal["reason"]
    assert seen.quiet, seen.events
    assert shop.host.sh(f"cat {VICTIM}") == "precious"

    # The way out that it names, to the letter.
    assert "remove its list of the project's files (files, beside" in refusal["remedy"]
    shop.host.sh("rm /var/lib/stackmend/shop/files")
    done = shop.run("-y")

    assert done.rc == 0, done.out
    assert shop.host.sh(f"cat {VICTIM}") == "precious"
    shop.assert_converged()
