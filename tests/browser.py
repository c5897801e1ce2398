"""``python -m tests.browser PAGE``: what a real browser makes of a page, as JSON.

A process of its own: what drives the browser has an event loop, and the tests' process may be
patched for another one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

#: What a Chromium may be called; the first one alone has no window and is small.
NAMES = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)

#: Widths of a phone and a desktop, and what their owners prefer.
WIDTHS, SCHEMES = (360, 1280), ("light", "dark")

_OBSERVE = """() => {
    const box = element => { const b = element.getBoundingClientRect();
        return [b.left, b.top, b.right, b.bottom]; };
    const overlap = (a, b) =>
        a[0] < b[2] - 1 && b[0] < a[2] - 1 && a[1] < b[3] - 1 && b[1] < a[3] - 1;
    const pictures = [...document.querySelectorAll(".block svg")].map(svg => {
        const texts = [...svg.querySelectorAll("text")].map(text => [text.textContent, box(text)]);
        const frame = box(svg);
        return {
            name: svg.querySelector("title").textContent,
            role: svg.getAttribute("role"),
            labelled: document.getElementById(svg.getAttribute("aria-labelledby")) !== null,
            box: frame,
            colours: [...new Set([...svg.querySelectorAll("path, use, text")].filter(
                part => !part.closest("defs")).map(part => {
                const style = getComputedStyle(part); return style.fill + " " + style.stroke; }))],
            outside: texts.filter(([, b]) => b[0] < frame[0] - 1 || b[2] > frame[2] + 1
                || b[1] < frame[1] - 1 || b[3] > frame[3] + 1).map(([text]) => text),
            overlapping: texts.flatMap(([text, b], i) => texts.slice(i + 1)
                .filter(([, other]) => overlap(b, other)).map(([other]) => [text, other])),
        };
    });
    const tables = [...document.querySelectorAll(".scroll")].map(region => ({
        section: region.closest("[id]").id,
        title: region.getAttribute("aria-label"),
        headings: [...region.querySelectorAll("thead th")].map(
            cell => cell.textContent.trim().split(/\\s+/).join(" ")),
        rows: [...region.querySelectorAll("tbody tr")].map(row => [...row.children].map(cell => ({
            text: cell.textContent,
            values: [...cell.querySelectorAll("data")].map(data => data.getAttribute("value")),
        }))),
    }));
    const findings = [...document.querySelectorAll("#findings > ul > li")].map(item => ({
        word: item.firstChild.textContent.trim(),
        hosts: [...item.querySelectorAll("a")].map(link => link.textContent),
    }));
    const strips = [...document.querySelectorAll(".strips dd")].map(part => ({
        bars: part.querySelectorAll("rect").length, text: part.querySelector("p").textContent,
    }));
    // What is behind a text: the first of its ancestors that is not transparent.
    const parse = colour => colour.match(/[0-9.]+/g).map(Number);
    const behind = element => { for (let at = element; at; at = at.parentElement) {
        const colour = parse(getComputedStyle(at).backgroundColor);
        if (colour.length < 4 || colour[3] > 0) return colour; } return [255, 255, 255]; };
    const light = colour => colour.slice(0, 3).map(part => part / 255).map(part =>
        part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
    const contrasts = {};
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const parent = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || parent.closest("title, style")) continue;
        const style = getComputedStyle(parent);
        const colour = parent.closest("svg") ? style.fill : style.color;
        const pair = [light(parse(colour)), light(behind(parent))].sort((a, b) => b - a);
        contrasts[colour + " on " + behind(parent)] = (pair[0] + 0.05) / (pair[1] + 0.05);
    }
    // Text that leaves its own line to the right or left, where nothing can be scrolled to it.
    const wide = [...document.querySelectorAll("bdi")].filter(
        text => !text.closest(".scroll")).map(box).filter(
        ([left, , right]) => left < -1 || right > document.documentElement.clientWidth + 1);
    const directions = [...document.querySelectorAll("bdi")].map(
        text => getComputedStyle(text).unicodeBidi);
    const root = document.documentElement;
    return {
        contrasts, wide, directions: [...new Set(directions)],
        tags: [...new Set([...document.querySelectorAll("*")].map(each => each.localName))],
        width: root.clientWidth, scrolled: Math.max(root.scrollWidth, document.body.scrollWidth),
        background: getComputedStyle(root).backgroundColor, text: getComputedStyle(root).color,
        title: document.title, pictures, tables, findings, strips,
        ids: [...document.querySelectorAll("[id]")].map(element => element.id),
    };
}"""

#: What the last link leads to, and whether it is in sight then; all is unfolded at the end.
_FOLLOW = """() => {
    const links = [...document.querySelectorAll('a[href^="#"]')];
    const seen = links.slice(-1).map(link => {
        link.click();
        const target = document.querySelector(link.getAttribute("href"));
        return [link.getAttribute("href"), target.checkVisibility(
            {contentVisibilityAuto: true, visibilityProperty: true})];
    });
    document.querySelectorAll("details").forEach(part => { part.open = true; });
    return seen;
}"""


def find() -> str:
    """The path of a Chromium; without one a test fails in CI, and is skipped elsewhere."""
    named = os.environ.get("STACKMEND_TEST_BROWSER")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    reason = f"no browser: install one of {', '.join(NAMES)}, or name one in STACKMEND_TEST_BROWSER"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def observe(page: Path) -> list[dict[str, Any]]:
    """Open a page at each width and scheme; what the browser says and shows of each."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.browser", find(), str(page)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: list[dict[str, Any]] = json.loads(done.stdout)
    return seen


def draw(page: Path, into: Path, width: int, height: int) -> None:
    """Draw the top of a page as PNG, in light colours.

    + page: the file
    + into: the picture
    + width: of the window, in pixels; ``height`` likewise
    """
    argv = [find(), str(page), str(into), str(width), str(height)]
    subprocess.run([sys.executable, "-m", "tests.browser", *argv], timeout=120, check=True)


def _draw(executable: str, page: str, into: str, width: str, height: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        opened = browser.new_page(viewport={"width": int(width), "height": int(height)})
        opened.goto(Path(page).resolve().as_uri())
        opened.screenshot(path=into)
        browser.close()


def main(executable: str, page: str) -> None:
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        for width in WIDTHS:
            for scheme in SCHEMES:
                context = browser.new_context(
                    viewport={"width": width, "height": 900}, color_scheme=scheme
                )
                opened = context.new_page()
                messages: list[str] = []
                requests: list[str] = []
                opened.on("console", lambda message, into=messages: into.append(message.text))
                opened.on("pageerror", lambda error, into=messages: into.append(str(error)))
                opened.on("request", lambda request, into=requests: into.append(request.url))
                opened.on(
                    "dialog",
                    lambda dialog, into=messages: (into.append("dialog"), dialog.dismiss()),
                )
                opened.goto(Path(page).resolve().as_uri())
                followed = opened.evaluate(_FOLLOW)
                observed = opened.evaluate(_OBSERVE)
                found.append(
                    {"at": width, "scheme": scheme, "messages": messages, "requests": requests}
                    | {"followed": followed}
                    | observed
                )
                context.close()
        browser.close()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    (_draw if len(sys.argv) > 3 else main)(*sys.argv[1:])
