"""What all pages that stackmend writes have in common."""

import base64
import hashlib


def make_policy(style: str) -> str:
    """What a page may do, as its Content-Security-Policy: use its one style sheet, and no more.

    :param style: the text of the sheet, by whose hash the browser knows it.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
