"""Pongee: the real-time layer for FastAPI."""

from __future__ import annotations

from pongee.app import Pongee
from pongee.centrifuge.client import Client
from pongee.channels.publication import Position
from pongee.codes import CauseKind, CloseCause, CloseCode
from pongee.errors import (
    BrokerUnavailable,
    ClientError,
    ConfigurationError,
    InvalidToken,
    MessageError,
    PongeeError,
    Refused,
    SessionClosed,
    UsageError,
)
from pongee.guards.jwt import JWTBearer
from pongee.guards.origin import OriginPolicy
from pongee.guards.policy import AnyOf, StaticTokens, TokenPolicy, public
from pongee.guards.shared_tickets import SharedTickets
from pongee.guards.tickets import Tickets
from pongee.guards.token import (
    CookieToken,
    FirstMessage,
    HeaderToken,
    QueryToken,
    SubprotocolToken,
)
from pongee.guards.verdict import Identity
from pongee.handlers.channel import Channel
from pongee.limits import Caps, ClientLimits, Limits
from pongee.publisher import Publisher
from pongee.registry import ConnectionInfo
from pongee.sessions.options import Heartbeat
from pongee.sessions.session import Session
from pongee.sessions.snapshot import SessionStatistics
from pongee.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "AnyOf",
    "BrokerUnavailable",
    "Caps",
    "CauseKind",
    "Channel",
    "Client",
    "ClientError",
    "ClientLimits",
    "CloseCause",
    "CloseCode",
    "ConfigurationError",
    "ConnectionInfo",
    "CookieToken",
    "FirstMessage",
    "HeaderToken",
    "Heartbeat",
    "Identity",
    "InvalidToken",
    "JWTBearer",
    "Limits",
    "MessageError",
    "OriginPolicy",
    "Pongee",
    "PongeeError",
    "Position",
    "Publisher",
    "QueryToken",
    "Refused",
    "Session",
    "SessionClosed",
    "SessionStatistics",
    "Settings",
    "SharedTickets",
    "StaticTokens",
    "SubprotocolToken",
    "Tickets",
    "TokenPolicy",
    "UsageError",
    "public",
]
