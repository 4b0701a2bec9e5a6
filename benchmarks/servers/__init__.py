"""The same work done by others: one small application each, written as its documentation does.

Each Python module beside this one either has ``app``, an ASGI application, or ``serve(listener)``,
a coroutine function that serves on a socket for good. Paths are those of `benchmarks.plain_app`,
but for Socket.IO, which has one path and names its events. None compresses, none logs accesses,
and all Python ones run on uvloop.
"""
