"""Run the README's command that installs and opens the demo, as it stands there, until the demo is being served.

Used by .ci/run in an environment of its own; a person's browser is the only thing left out.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Exit with an error unless JupyterLab serves the copied demo."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"open the demo on the bundled model.*?```bash\n(.*?)```", text, re.DOTALL)
    if found is None:
        raise SystemExit("README.md has no command that opens the demo")
    command = found[1].strip()
    print(command)
    copy = ROOT / "classspace_demo.ipynb"
    if copy.exists():
        raise SystemExit(f"{copy} is there already")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "ServerApp": {"allow_root": True, "open_browser": False, "ip": "127.0.0.1", "port": port},
            "IdentityProvider": {"token": ""},
        }
        (Path(folder) / "jupyter_server_config.json").write_text(json.dumps(settings))
        environment = {**os.environ, "JUPYTER_CONFIG_DIR": folder, "JUPYTER_RUNTIME_DIR": folder}
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command], cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            address = f"http://127.0.0.1:{port}/api/contents/{copy.name}"
            cells = _served(address, process)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
            copy.unlink(missing_ok=True)
    if len(cells) < 20:
        raise SystemExit(f"the demo that is served has {len(cells)} cells only")
    print(f"JupyterLab serves the demo, {len(cells)} cells")


def _served(address: str, process: subprocess.Popen[bytes]) -> list[object]:
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the command ended with {process.returncode}")
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                return list(json.load(answer)["content"]["cells"])
        except OSError:
            time.sleep(1)
    raise SystemExit("the demo was not served within ten minutes")


if __name__ == "__main__":
    sys.exit(main())
