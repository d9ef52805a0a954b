"""Messages that wait, each for a time of its own, before they are worked on: for a simulated service only.

None waits for a slower one: whoever's time is over is worked on next, together with those whose time is over
too, as commands are in a group commit. Refuses more messages than its limit: the others stay in the stream.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from servicekit.pull import Message

log = logging.getLogger(__name__)


class InHand:
    """At most `limit` messages, of which `messages` shows those that wait or are worked on.

    `wait` returns whether a message is still to be worked on when its time is over. `work` settles up to
    `batch` of them, one batch at a time; what an error of either leaves unsettled is delivered again.
    """

    def __init__(
        self,
        wait: Callable[[Message], Awaitable[bool]],
        work: Callable[[Sequence[Message]], Awaitable[None]],
        *,
        limit: int,
        batch: int,
    ) -> None:
        self._wait = wait
        self._work = work
        self._limit = limit
        self._batch = batch
        self.messages: set[Message] = set()
        self._due: deque[Message] = deque()
        self._some_due = asyncio.Event()
        self._one_left = asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def run(self, hear: Coroutine[Any, Any, None]) -> None:
        """Work beside `hear`, which has the messages taken, until it ends; all waits end with it."""
        async with self._group:
            worker = self._group.create_task(self._work_on_due())
            try:
                await hear
            finally:
                worker.cancel()

    async def room(self) -> int:
        """How many more messages may be taken; waits until it is one at least."""
        while len(self.messages) >= self._limit:
            self._one_left.clear()
            await self._one_left.wait()
        return self._limit - len(self.messages)

    def take(self, messages: Sequence[Message]) -> None:
        """Let each wait for its time; no more of them than there is room."""
        self.messages.update(messages)
        for message in messages:
            self._group.create_task(self._wait_for(message))

    async def _wait_for(self, message: Message) -> None:
        try:
            is_due = await self._wait(message)
        except Exception:
            log.exception("a message could not be made to wait")
            is_due = False
        if is_due:
            self._due.append(message)
            self._some_due.set()
        else:
            self._let_go([message])

    async def _work_on_due(self) -> None:
        while True:
            await self._some_due.wait()
            batch = [self._due.popleft() for _ in range(min(len(self._due), self._batch))]
            if not self._due:
                self._some_due.clear()
            try:
                await self._work(batch)
            except Exception:
                log.exception("messages could not be worked on")
            self._let_go(batch)

    def _let_go(self, messages: Sequence[Message]) -> None:
        self.messages.difference_update(messages)
        self._one_left.set()
