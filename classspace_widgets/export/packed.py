"""Data and scripts inside a page: gzipped, in base64, unpacked by the browser; and what a page may do at all."""

from __future__ import annotations

import base64
import hashlib
import math
import zlib
from typing import TYPE_CHECKING

from classspace_widgets.progress import over

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK = 1_000_000
"""Bytes that are packed at a time."""

UNPACK = """
(async () => {
  for (const packed of document.querySelectorAll('script[type="application/x-script"]')) {
    const bytes = Uint8Array.from(atob(packed.textContent), (c) => c.charCodeAt(0));
    const script = document.createElement("script");
    script.textContent = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    document.head.append(script);
  }
})();
""".strip()
"""What a page runs to unpack its scripts, one after the other."""


def packed(data: bytes) -> str:
    """Bytes, gzipped, in base64; the same bytes give the same text."""
    squeeze, out = zlib.compressobj(9, wbits=31), bytearray()
    for start in over(range(0, len(data), CHUNK), math.ceil(len(data) / CHUNK), "packing", "MB"):
        out += squeeze.compress(data[start : start + CHUNK])
    return base64.b64encode(out + squeeze.flush()).decode()


def packed_scripts(scripts: Sequence[str]) -> str:
    """Scripts as HTML that unpacks and runs them in their order; BokehJS takes a third of its size so."""
    blocks = [f'<script type="application/x-script">{packed(text.encode())}</script>' for text in scripts]
    return "\n".join([*blocks, f"<script>{UNPACK}</script>"])


def policy(scripts: Sequence[str], *, workers: bool = False) -> str:
    """The Content-Security-Policy of every page: these scripts run and no others, and nothing is fetched or sent.

    With ``workers``, a script of the page may start a worker from a text of its own.
    """
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in scripts) or "'none'"
    worker = " worker-src blob:;" if workers else ""
    return (
        f"default-src 'none'; script-src {hashes};{worker} style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    # A browser hashes the script after normalising line ends.
    return base64.b64encode(hashlib.sha256(text.replace("\r\n", "\n").replace("\r", "\n").encode()).digest()).decode()
