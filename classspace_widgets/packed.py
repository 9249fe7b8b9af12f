"""Data and scripts inside a page: gzipped, in base64, unpacked by the browser."""

from __future__ import annotations

import base64
import gzip
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    return base64.b64encode(gzip.compress(data, compresslevel=9, mtime=0)).decode()


def packed_scripts(scripts: Sequence[str]) -> str:
    """Scripts as HTML that unpacks and runs them in their order; BokehJS takes a third of its size so."""
    blocks = [f'<script type="application/x-script">{packed(text.encode())}</script>' for text in scripts]
    return "\n".join([*blocks, f"<script>{UNPACK}</script>"])
