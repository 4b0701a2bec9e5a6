"""A link on plain ASGI messages: sends that overlap, are cancelled, or fail."""

from __future__ import annotations

import asyncio

import pytest

from pongee.codes import CauseKind
from pongee.links.base import Outgoing, Overflow
from tests.links.harness import Wired, all_blocked, start

pytestmark = pytest.mark.anyio


async def test_send_with_nothing_waiting_is_a_direct_write() -> None:
    """The common case costs no task switch: when `send` returns, the server has the message."""
    async with Wired() as wired:
        tasks = len(asyncio.all_tasks())

        await wired.link.send(Outgoing("a"))

        assert wired.server.texts == ["a"]
        assert len(asyncio.all_tasks()) == tasks


async def test_order_holds_across_direct_and_queued_sends() -> None:
    """Whoever sends first is first on the wire, whatever way the message takes."""
    async with Wired() as wired:
        wired.server.hold()
        first = start(wired.link.send(Outgoing("1")))
        await all_blocked()
        second = start(wired.link.send(Outgoing("2")))
        await all_blocked()
        wired.link.push(Outgoing("3"))
        wired.server.let_one()
        # The direct write is over, the writer has not begun: neither may overtake what waits.
        await asyncio.sleep(0)
        wired.link.push(Outgoing("4"))
        fifth = start(wired.link.send(Outgoing("5")))
        await all_blocked()
        wired.server.flow()
        await asyncio.gather(first, second, fifth)
        await wired.link.send(Outgoing("6"))
        await all_blocked()

        assert wired.server.texts == ["1", "2", "3", "4", "5", "6"]


async def test_only_one_send_is_under_way_at_a_time() -> None:
    """ASGI servers do not promise order to overlapping sends, so there are none."""
    async with Wired() as wired:
        wired.server.hold()
        sends = [start(wired.link.send(Outgoing(str(number)))) for number in range(5)]
        wired.link.push(Outgoing("5"))
        for left in range(6, 0, -1):
            await all_blocked()
            assert len(wired.server.held) == 1, left
            wired.server.let_one()
        await asyncio.gather(*sends)
        await all_blocked()

        assert sorted(wired.server.texts) == ["0", "1", "2", "3", "4", "5"]


async def test_send_waits_while_the_outbox_is_over_its_bound_and_goes_on_with_room() -> None:
    """Backpressure reaches the handler under ``disconnect``."""
    async with Wired(outbox_messages=1) as wired:
        wired.server.hold()
        sends = [start(wired.link.send(Outgoing(str(number)))) for number in range(3)]
        await all_blocked()
        assert [task.done() for task in sends] == [False, True, False]

        wired.server.let_one()
        await all_blocked()
        wired.server.let_one()
        await all_blocked()

        assert all(task.done() for task in sends)
        assert wired.owner.stalled == []


@pytest.mark.parametrize("overflow", ["drop_oldest", "latest_per_key"])
async def test_send_never_waits_where_messages_may_be_dropped(overflow: Overflow) -> None:
    """The newest are kept, the oldest are dropped and counted."""
    async with Wired(overflow, outbox_messages=2) as wired:
        wired.server.hold()
        await wired.link.send(Outgoing("0"))
        await all_blocked()
        for number in range(1, 6):
            await wired.link.send(Outgoing(str(number)))
        wired.server.flow()
        await all_blocked()

        assert wired.server.texts == ["0", "4", "5"]
        assert wired.link.statistics().dropped_messages == 3


async def test_push_into_a_full_outbox_tells_the_owner() -> None:
    """Under ``disconnect`` nothing is dropped in silence."""
    async with Wired(outbox_messages=1) as wired:
        wired.server.hold()
        for number in range(3):
            wired.link.push(Outgoing(str(number)))
            await all_blocked()

        assert wired.owner.stalled == ["outbox full"]


async def test_cancelled_send_leaves_the_queue_moving() -> None:
    """The message may be lost or not; those behind it are not, and the order holds."""
    async with Wired() as wired:
        wired.server.hold()
        first = start(wired.link.send(Outgoing("1")))
        await all_blocked()
        wired.link.push(Outgoing("2"))
        first.cancel()
        await all_blocked()
        wired.server.flow()
        await all_blocked()

        assert first.cancelled()
        assert wired.server.texts == ["2"]
        assert len(wired.watch) == 0


async def test_cancelled_wait_for_room_loses_nothing() -> None:
    """A sender that gives up waiting has its message in the queue already."""
    async with Wired(outbox_messages=1) as wired:
        wired.server.hold()
        sends = [start(wired.link.send(Outgoing(str(number)))) for number in range(3)]
        await all_blocked()
        sends[2].cancel()
        await all_blocked()
        wired.server.flow()
        await all_blocked()

        assert wired.server.texts == ["0", "1", "2"]


async def test_statistics_count_messages_and_what_waits() -> None:
    """Messages and bytes since accept, and the outbox now."""
    async with Wired() as wired:
        await wired.link.send(Outgoing("abc"))
        wired.server.hold()
        wired.link.push(Outgoing("d"))
        await all_blocked()
        wired.link.push(Outgoing("ef"))

        numbers = wired.link.statistics()

        assert (numbers.sent_messages, numbers.sent_bytes) == (1, 3)
        assert (numbers.outbox_messages, numbers.outbox_bytes) == (1, 2)
        assert (numbers.dropped_messages, numbers.replaced_messages) == (0, 0)


# Sends that fail


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("closed"), ConnectionResetError()])
async def test_direct_send_to_a_peer_that_is_gone_returns_and_marks_the_link(
    error: Exception,
) -> None:
    """The reader knows the true cause; the writer only stops."""
    async with Wired() as wired:
        wired.server.fail(error)

        await wired.link.send(Outgoing("1"))
        await wired.link.send(Outgoing("2"))
        wired.link.push(Outgoing("3"))

        assert wired.link.lost
        assert wired.owner.lost == []
        assert wired.link.statistics().outbox_messages == 0


async def test_queued_send_that_fails_frees_every_sender_that_waits() -> None:
    """Nobody waits for room in a queue that will never move."""
    async with Wired(outbox_messages=1) as wired:
        wired.server.hold()
        sends = [start(wired.link.send(Outgoing(str(number)))) for number in range(4)]
        await all_blocked()
        wired.server.fail(OSError("gone"))
        await all_blocked()

        assert all(task.done() and task.exception() is None for task in sends)
        assert wired.link.lost


async def test_write_that_finds_the_peer_gone_wakes_a_paused_reader() -> None:
    """The disconnect event waits behind the pause; it must be read to learn the cause."""
    async with Wired() as wired:
        wired.link.pause_reading()
        reader = start(wired.link.pump())
        await all_blocked()
        wired.server.arrive(type="websocket.disconnect", code=1006)
        wired.server.fail(OSError("gone"))
        await wired.link.send(Outgoing("1"))
        await reader

        assert [cause.kind for cause in wired.owner.lost] == [CauseKind.CONNECTION_LOST]


async def test_message_a_server_cannot_encode_does_not_stop_those_behind_it() -> None:
    """A lone surrogate is the sender's bug; close and later messages still go out."""
    async with Wired() as wired:
        wired.server.hold()
        wired.link.push(Outgoing("1"))
        await all_blocked()
        wired.link.push(Outgoing("2"))
        error = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        wired.server.fail_one(error)
        await all_blocked()
        wired.server.flow()
        await all_blocked()

        assert wired.server.texts == ["2"] or wired.link.lost
