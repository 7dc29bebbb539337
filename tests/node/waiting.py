"""Waiting for what other tasks of the same loop will do."""

import asyncio
from collections.abc import Callable

PATIENCE_S = 30.0


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until ``condition`` holds.  Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.002)
