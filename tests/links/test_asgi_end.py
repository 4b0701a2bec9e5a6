"""A link on plain ASGI messages: close and abort, while something else is under way."""

from __future__ import annotations

import asyncio

import pytest

from pongee.links.base import Capabilities, Outgoing
from tests.links.harness import Wired, all_blocked, start

pytestmark = pytest.mark.anyio

TICKS = 0.6
"""Seconds that cover a look of the watch and a tick of the wheel."""


async def test_close_sends_what_waits_and_then_the_close_frame() -> None:
    """Nothing the handler sent is lost to its own goodbye."""
    async with Wired() as wired:
        wired.server.hold()
        wired.link.push(Outgoing("1"))
        wired.link.push(Outgoing("2"))
        closing = start(wired.link.close(4000, "x" * 200))
        await all_blocked()
        assert not closing.done()
        wired.server.flow()
        await closing

        assert wired.server.texts == ["1", "2", "4000"]
        assert wired.server.sent[-1] == {
            "type": "websocket.close",
            "code": 4000,
            "reason": "x" * 123,
        }
        assert wired.server.aborted == 0


@pytest.mark.parametrize("cancel", [False, True])
async def test_close_while_a_direct_send_is_blocked_waits_for_it(cancel: bool) -> None:
    """The close frame cannot overtake, nor be forgotten when the sender is cancelled."""
    async with Wired() as wired:
        wired.server.hold()
        send = start(wired.link.send(Outgoing("1")))
        await all_blocked()
        closing = start(wired.link.close(1000, ""))
        await all_blocked()
        if cancel:
            send.cancel()
            await all_blocked()
        wired.server.flow()
        await closing

        assert wired.server.texts == (["1000"] if cancel else ["1", "1000"])


async def test_close_with_senders_waiting_for_room_sends_their_messages_first() -> None:
    """A full outbox is emptied before the goodbye."""
    async with Wired(outbox_messages=1) as wired:
        wired.server.hold()
        sends = [start(wired.link.send(Outgoing(str(number)))) for number in range(4)]
        await all_blocked()
        closing = start(wired.link.close(1000, ""))
        await all_blocked()
        sends[0].cancel()
        await all_blocked()
        wired.server.flow()
        await closing

        assert wired.server.texts == ["1", "2", "3", "1000"]
        assert all(task.done() for task in sends)


async def test_messages_after_close_are_ignored() -> None:
    """Nothing follows a close frame (RFC 6455 section 5.5.1)."""
    async with Wired() as wired:
        wired.server.hold()
        closing = start(wired.link.close(1000, ""))
        await all_blocked()
        wired.link.push(Outgoing("late"))
        await wired.link.send(Outgoing("later"))
        wired.server.flow()
        await closing
        wired.link.push(Outgoing("last"))
        await all_blocked()

        assert wired.server.texts == ["1000"]


async def test_close_twice_sends_one_close_frame() -> None:
    """Idempotent, at the same time or later."""
    async with Wired() as wired:
        await asyncio.gather(wired.link.close(1000, ""), wired.link.close(1011, ""))
        await wired.link.close(1011, "")

        assert wired.server.texts == ["1000"]


async def test_close_frame_is_not_counted_as_a_message() -> None:
    """Counters tell what the application sent."""
    async with Wired() as wired:
        await wired.link.send(Outgoing("1"))
        await wired.link.close(1000, "")

        assert wired.link.statistics().sent_messages == 1


async def test_close_frame_that_never_left_is_not_counted_as_dropped() -> None:
    """Counters tell what the application lost."""
    async with Wired() as wired:
        wired.server.hold()
        wired.link.push(Outgoing("1"))
        await all_blocked()
        closing = start(wired.link.close(1000, ""))
        await all_blocked()
        wired.link.abort()
        await closing

        assert wired.link.statistics().dropped_messages == 0


async def test_close_that_does_not_drain_ends_in_an_abort() -> None:
    """A polite close would wait for the very buffer that does not drain."""
    async with Wired(close_timeout=5) as wired:
        wired.server.hold()
        wired.link.push(Outgoing("1"))
        await all_blocked()
        closing = start(wired.link.close(1000, ""))
        await all_blocked()
        wired.clock.advance(4.9)
        await all_blocked()
        assert not closing.done()
        wired.clock.advance(0.2)
        await closing

        assert wired.server.aborted == 1
        assert wired.link.lost
        assert "1000" not in wired.server.texts


async def test_close_after_the_peer_is_gone_does_nothing() -> None:
    """Never raises, sends nothing, waits for nothing."""
    async with Wired() as wired:
        wired.server.arrive(type="websocket.disconnect", code=1006)
        await wired.link.pump()

        await wired.link.close(1000, "")

        assert wired.server.sent == []


async def test_close_when_the_peer_goes_away_meanwhile_returns() -> None:
    """A send that fails under a close ends the close."""
    async with Wired() as wired:
        wired.server.hold()
        wired.link.push(Outgoing("1"))
        await all_blocked()
        closing = start(wired.link.close(1000, ""))
        await all_blocked()
        wired.server.fail(OSError("gone"))
        await closing

        assert wired.link.lost
        assert wired.server.aborted == 0


async def test_cancelled_close_is_cancelled_and_the_frame_still_goes_out() -> None:
    """Cancellation reaches whoever waits; the goodbye is on its way already."""
    async with Wired() as wired:
        wired.server.hold()
        wired.link.push(Outgoing("1"))
        closing = start(wired.link.close(1000, ""))
        await all_blocked()
        closing.cancel()
        await all_blocked()
        wired.server.flow()
        await all_blocked()

        assert closing.cancelled()
        assert wired.server.texts == ["1", "1000"]


async def test_drop_waiting_leaves_the_close_frame_next() -> None:
    """What waits is dropped and counted, and a close goes out after the write under way."""
    async with Wired() as wired:
        wired.server.hold()
        for text in "123":
            wired.link.push(Outgoing(text))
        await all_blocked()
        wired.link.drop_waiting()
        closing = start(wired.link.close(1013, ""))
        await all_blocked()
        wired.server.flow()
        await closing

        assert wired.server.texts == ["1", "1013"]
        assert wired.link.statistics().dropped_messages == 2


# Aborting


@pytest.mark.parametrize("can_abort", [True, False])
async def test_abort_drops_what_waits_and_frees_every_sender(can_abort: bool) -> None:
    """Where the server keeps its transport to itself, the answer says so."""
    async with Wired(can_abort=can_abort, outbox_messages=1) as wired:
        wired.server.hold()
        wired.link.push(Outgoing("0"))
        await all_blocked()
        wired.link.push(Outgoing("1"))
        send = start(wired.link.send(Outgoing("2")))
        await all_blocked()

        assert wired.link.abort() is can_abort
        await all_blocked()

        assert send.done()
        assert wired.server.aborted == can_abort
        assert wired.link.lost
        assert wired.link.statistics().outbox_messages == 0
        assert wired.link.capabilities == Capabilities(abort=can_abort, denial=False)


async def test_abort_during_a_direct_send_ends_it() -> None:
    """The cut transport lets the blocked send return."""
    async with Wired() as wired:
        wired.server.hold()
        send = start(wired.link.send(Outgoing("1")))
        await all_blocked()

        wired.link.abort()
        await send

        assert len(wired.watch) == 0


async def test_abort_later_cuts_when_its_time_has_come() -> None:
    """Where the server keeps its transport to itself, nothing is set."""
    async with Wired() as wired:
        wired.link.abort_after(5)
        wired.clock.advance(4.9)
        assert wired.server.aborted == 0
        wired.clock.advance(0.2)
        assert wired.server.aborted == 1
    async with Wired(can_abort=False) as wired:
        wired.link.abort_after(5)
        assert len(wired.watch.wheel) == 0


async def test_write_without_progress_tells_the_owner_after_the_deadline() -> None:
    """Direct writes and those of the writer alike; progress starts the deadline anew."""
    async with Wired(write_deadline=10) as wired:
        wired.server.hold()
        send = start(wired.link.send(Outgoing("1")))
        await all_blocked()
        wired.link.push(Outgoing("2"))
        wired.clock.advance(9)
        wired.server.let_one()
        await send
        await all_blocked()
        wired.clock.advance(9)
        assert wired.owner.stalled == []
        wired.clock.advance(1 + TICKS)

        assert wired.owner.stalled == ["write deadline"]
