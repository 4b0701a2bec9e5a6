"""What travels, and how each side wants to be spoken to.

Used by the workloads and, for the model, by both applications. In a template, ten S stand for the
sequence number and nineteen T for the time a message was due (`generator.c` fills them in), so that
loss, order and delay can be checked wherever a message arrives.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

__all__ = ["CHANNELS", "PLAIN_DIALECT", "SOCKETIO", "Dialect", "Reading", "recovering", "typed"]

SEQUENCE = "S" * 10
TIME = "T" * 19

JSON = f'{{"sequence":{SEQUENCE},"sent":{TIME}}}'


class Reading(BaseModel):
    """A message of the typed endpoints; its fields stand as both servers write them."""

    sequence: int
    sent: int
    device: str
    value: float
    tags: list[str]


@dataclass(frozen=True)
class Dialect:
    """How the generator speaks to a side.

    Attributes:
        echo: path that echoes.
        room: path of members.
        publish: path of the connection whose messages go to the members.
        steps: after the handshake, pairs of what is awaited and what is answered.
        joining: the same on a member's connection.
        echo_frame: around a text that is echoed, in both directions.
        publish_frame: around a text that is published.
        room_frame: around a text that members get.
        json: path that echoes JSON.
        json_out: template of what is sent there.
        json_in: template of what comes back.
    """

    echo: str = "/text"
    room: str = "/room"
    publish: str = "/publish"
    steps: tuple[str, ...] = ()
    joining: tuple[str, ...] = ()
    echo_frame: tuple[str, str] = ("", "")
    publish_frame: tuple[str, str] = ("", "")
    room_frame: tuple[str, str] = ("", "")
    json: str = "/json"
    json_out: str = JSON
    json_in: str = JSON

    def echoes(self, size: int) -> tuple[str, str]:
        """Templates of an echo of `size` bytes of text."""
        text = _text(size).join(self.echo_frame)
        return text, text

    def publications(self, size: int) -> tuple[str, str]:
        """Templates of a publication of `size` bytes of text, and of what a member gets."""
        text = _text(size)
        return text.join(self.publish_frame), text.join(self.room_frame)


def typed() -> tuple[str, str]:
    """Templates of the echo of a `Reading`."""
    text = (
        f'{{"sequence":{SEQUENCE},"sent":{TIME},"device":"boiler-7","value":21.5,'
        '"tags":["north","cellar"]}'
    )
    return text, text


def _text(size: int) -> str:
    return f"{SEQUENCE} {TIME} ".ljust(size, "x")


PLAIN_DIALECT = Dialect()

_URL = "/socket.io/?EIO=4&transport=websocket"
_OPEN = ("0", "40", "40", "")
"""Engine.IO opens with a packet 0; the namespace is asked for with 40 and granted with 40."""

SOCKETIO = Dialect(
    echo=_URL,
    room=_URL,
    publish=_URL,
    steps=_OPEN,
    joining=("0", "40", "40", '42["join"]'),
    echo_frame=('42["echo","', '"]'),
    publish_frame=('42["publish","', '"]'),
    room_frame=('42["room","', '"]'),
)
"""Events of Socket.IO (packet 4, message; 2, event), spoken in raw text."""

_CONNECT = '{"id":1,"connect":{}}'
_SUBSCRIBE = '{"id":2,"subscribe":{"channel":"room"}}'
_CONNECTED, _SUBSCRIBED = '{"id":1,"connect"', '{"id":2,"subscribe"'

CHANNELS = Dialect(
    room="/connection/websocket",
    publish="/connection/websocket",
    steps=("", _CONNECT, _CONNECTED, ""),
    joining=("", _CONNECT, _CONNECTED, _SUBSCRIBE, _SUBSCRIBED, ""),
    publish_frame=(f'{{"id":{SEQUENCE},"publish":{{"channel":"room","data":"', '"}}'),
    room_frame=('{"push":{"channel":"room","pub":{"data":"', '"*'),
    json="/connection/websocket",
    json_out=f'{{"id":{SEQUENCE},"rpc":{{"method":"echo","data":{{"sent":{TIME}}}}}}}',
    json_in=f'{{"id":{SEQUENCE},"rpc":{{"data":{{"sent":{TIME}}}}}}}',
)
"""The client protocol in JSON; a publication is followed by its publisher and offset."""


def recovering(offset: int, epoch: str) -> tuple[str, ...]:
    """Steps of a member that comes back from a position, and must get what it missed."""
    subscribe = (
        f'{{"id":2,"subscribe":{{"channel":"storm","recover":true,"offset":{offset},'
        f'"epoch":"{epoch}"}}}}'
    )
    found = f'{{"id":2,"subscribe":{{"recoverable":true,"epoch":"{epoch}","publications":[{{"data"'
    return ("", _CONNECT, _CONNECTED, subscribe, found, "")
