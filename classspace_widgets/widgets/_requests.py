"""Requests of views, answered by the snapshot's source one step at a time.

A request becomes an asyncio task, so that the kernel handles other messages between the steps of its answer: a cancel,
another request, a cell.  Every request is answered exactly once: with its result, an error, or that it was cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

from classspace_widgets.export.front_end import later
from classspace_widgets.progress import quiet
from classspace_widgets.widgets._interrupts import interruptible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classspace_widgets.snapshot.snapshot import Snapshot
    from classspace_widgets.snapshot.source import Answer, Source

    Sender = dict[str, Any]

log = logging.getLogger(__name__)

MAX_REQUESTS = 1000
"""Requests that may wait for their answers at once: views send a few for every click, so more come from a loop gone wild."""
SCRIPT = "script "
"""How the kind of a request for a script of the front end begins; its name follows."""
MODEL = "model"
"""The kind of a request for the model that a live session keeps."""
IDLE: dict[str, Any] = {"kind": "idle", "text": "", "progress": None}
_BUSY: dict[str, Any] = {"kind": "busy", "text": "", "progress": None}
_CANCELLED = ("Cancelled", "The computation was cancelled; nothing changed.")


class Host(Protocol):
    """A session, as its requests need it."""

    snapshot: Snapshot
    status: dict[str, Any]
    other: Any
    _intervened: bytes

    def send(self, content: dict[str, Any], buffers: Sequence[bytes] | None = None) -> None:
        """Send a message to the views."""
        ...


class Requests:
    """Requests of a session's views, and the tasks that answer them."""

    def __init__(self, session: Host) -> None:
        self._session = session
        self.tasks: dict[tuple[Any, Any], asyncio.Task[None]] = {}

    def handle(self, content: Any, buffers: Sequence[Any]) -> None:
        """A message of a view: see ``docs/snapshot_format.md`` for what there is."""
        sender = _sender(content)
        if sender is None:
            log.warning("a message that no view sends was ignored: %.200r", content)
        elif content.get("type") == "cancel":
            if (task := self.tasks.get(_key(sender))) is not None:
                task.cancel()
        elif content.get("type") == "request":
            if _key(sender) in self.tasks:
                self._refuse(sender, "Refused", f"the request {sender['id']} is being answered already")
                return
            if len(self.tasks) >= MAX_REQUESTS:
                self._refuse(sender, "Refused", f"{MAX_REQUESTS} requests are waiting already; try again later")
                return
            if content.get("kind") == MODEL or str(content.get("kind")).startswith(SCRIPT):
                self._send_part(sender, content["kind"])
                return
            answering = self._answer(sender, content, buffers)
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                asyncio.run(answering)
            else:
                self.tasks[_key(sender)] = task = loop.create_task(answering)
                task.add_done_callback(lambda done: self._done(sender, done))

    def _send_part(self, sender: Sender, kind: str) -> None:
        """A script of the front end, or the model that its engine runs: at once, and nothing is said of it."""
        try:
            if kind == MODEL:
                result, buffers = {}, [self._source().model()]
            else:
                result, buffers = {"text": later(kind.removeprefix(SCRIPT))}, []
        except (ValueError, OSError, RuntimeError) as error:
            self._refuse(sender, type(error).__name__, str(error))
        else:
            self._session.send({"type": "response", **sender, "ok": True, "result": result}, buffers=buffers)

    def _done(self, sender: Sender, task: asyncio.Task[None]) -> None:
        self.tasks.pop(_key(sender), None)
        if task.cancelled():  # before it had begun: `_answer` replies itself once it runs
            self._refuse(sender, *_CANCELLED)

    async def _answer(self, sender: Sender, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        kind = str(content.get("kind"))[:60]
        self._session.status = {**_BUSY, "text": kind}
        try:
            answer = await self._steps(sender, kind, content.get("params", {}), buffers)
        except asyncio.CancelledError:
            self._refuse(sender, *_CANCELLED)
            self._session.status = IDLE
        except KeyboardInterrupt:
            self._refuse(sender, "Interrupted", "The computation was interrupted; nothing changed.")
            self._session.status = IDLE
        except Exception as error:
            log.exception("request %r failed", kind)
            self._refuse(sender, type(error).__name__, str(error) or type(error).__name__)
            self._session.status = {"kind": "error", "text": str(error), "progress": None}
        else:
            self._take(answer)
            parts = [answer.part] if answer.part is not None else []
            self._session.send({"type": "response", **sender, "ok": True, "result": answer.result}, buffers=parts)
            self._session.status = IDLE

    def _take(self, answer: Answer) -> None:
        """What the session shows from now on."""
        if answer.snapshot is not None:
            self._session.snapshot = answer.snapshot
        if answer.intervened is not None:
            self._session._intervened = answer.intervened.pack()
        if answer.other is not None:
            self._session.other = answer.other

    def run(self, kind: str, params: dict[str, Any]) -> None:
        """Answer a request of Python's own, at once."""
        steps = self._source().answer(kind, params)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                self._take(stop.value)
                return

    def _source(self) -> Source:
        source = self._session.snapshot.source
        if source is None:
            raise RuntimeError("this session has no model behind it: its snapshot came from a file")
        return source

    async def _steps(self, sender: Sender, kind: str, params: Any, buffers: Sequence[Any]) -> Answer:
        """Run the steps of an answer; between them the kernel handles other messages."""
        steps = self._source().answer(kind, params, buffers)
        while True:
            try:
                with quiet(), interruptible():
                    progress = next(steps)
            except StopIteration as stop:
                answer: Answer = stop.value
                return answer
            message = {"type": "progress", **sender, "fraction": progress.fraction, "text": progress.text}
            self._session.send(message)
            await asyncio.sleep(0)

    def _refuse(self, sender: Sender, title: str, message: str) -> None:
        self._session.send({"type": "response", **sender, "ok": False, "error": {"title": title, "message": message}})


def _sender(content: Any) -> Sender | None:
    """Who sent a message, which goes back with every answer: its number, and where it says so the browser it came from."""
    if not isinstance(content, dict):
        return None
    sender = {name: content[name] for name in ("client", "id") if name in content}
    plain = all(isinstance(value, (int, str)) and len(str(value)) <= 100 for value in sender.values())
    return sender if "id" in sender and plain else None


def _key(sender: Sender) -> tuple[Any, Any]:
    return sender.get("client"), sender["id"]
