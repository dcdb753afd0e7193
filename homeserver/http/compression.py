"""Answers that are smaller on their way, and requests that come so (RFC 9110, section 8.4).

Clients say which codings they take. What fits into one packet gains nothing and is sent as it is, as are long polls
that bring one message; what is large is compressed off the event loop; what is streamed, part by part.
"""

from __future__ import annotations

import asyncio
import functools
import io
import zlib
from typing import TYPE_CHECKING, Protocol

import brotli
import zstandard

from homeserver.errors import BadJson, NotJson, TooLarge
from homeserver.http.response import StreamedJson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.responses import Response
    from starlette.types import Scope

MIN_BYTES = 1_400
"""Less than this goes in one packet however it is written."""
_OFF_THE_LOOP_BYTES = 65_536
"""From here on compressing takes longer than handing it to a thread."""
_TYPES = (b"application/json", b"text/")
_GZIP_WINDOW = 31
_ZSTD_LEVEL, _BROTLI_QUALITY, _GZIP_LEVEL = 3, 4, 5
# Of a stream that somebody sends: what RFC 8878 says that everybody must bear.
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
_MAX_HEADER = 500
_VARY = (b"vary", b"Accept-Encoding")


class _Compressor(Protocol):
    def add(self, data: bytes) -> bytes:
        """What can be sent once `data` is in; with all of `data`, so that a stream does not stand still."""
        ...

    def end(self) -> bytes:
        """The rest."""
        ...


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()

    def add(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def end(self) -> bytes:
        return self._stream.flush()


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Compressor(mode=brotli.MODE_TEXT, quality=_BROTLI_QUALITY)

    def add(self, data: bytes) -> bytes:
        written: bytes = self._stream.process(data) + self._stream.flush()
        return written

    def end(self) -> bytes:
        rest: bytes = self._stream.finish()
        return rest


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WINDOW)

    def add(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._stream.flush()


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data)


def _brotli(data: bytes) -> bytes:
    compressed: bytes = brotli.compress(data, mode=brotli.MODE_TEXT, quality=_BROTLI_QUALITY)
    return compressed


def _gzip(data: bytes) -> bytes:
    return zlib.compress(data, _GZIP_LEVEL, wbits=_GZIP_WINDOW)


# The best first: at these levels zstd is the fastest and the smallest of them.
_WHOLE: dict[str, Callable[[bytes], bytes]] = {"zstd": _zstd, "br": _brotli, "gzip": _gzip}
_IN_PARTS: dict[str, Callable[[], _Compressor]] = {"zstd": _Zstd, "br": _Brotli, "gzip": _Gzip}


@functools.lru_cache(1_000)
def coding_for(accepted: str) -> str | None:
    """The coding that somebody with this `Accept-Encoding` likes best, of those that we like best; None for plain."""
    weights: dict[str, float] = {}
    for item in accepted[:_MAX_HEADER].lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        weights[{"x-gzip": "gzip"}.get(name, name)] = _weight(parameters)
    offered = {name: weights.get(name, weights.get("*", 0.0)) for name in _WHOLE}
    best = max(offered, key=lambda name: offered[name])
    return best if offered[best] > 0 and offered[best] >= weights.get("identity", 0.0) else None


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            # Of what is no number, nothing is greater and nothing less.
            return min(max(weight, 0.0), 1.0) if weight == weight else 0.0  # noqa: PLR0124
    return 1.0


async def compress(response: Response, scope: Scope) -> Response:
    """The answer to a request as its sender takes it; what gains nothing, or is compressed already, stays as it is."""
    if len(response.body) < MIN_BYTES and not isinstance(response, StreamedJson):
        return response
    names = dict(response.raw_headers)
    if b"content-encoding" in names or not names.get(b"content-type", b"").startswith(_TYPES):
        return response
    response.raw_headers.append(_VARY)
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept-encoding")
    coding = coding_for(accepted.decode("latin-1"))
    if coding is None:
        return response
    if isinstance(response, StreamedJson):
        response.parts = _in_parts(response.parts, _IN_PARTS[coding]())
    else:
        body, whole = bytes(response.body), _WHOLE[coding]
        response.body = (
            whole(body) if len(body) < _OFF_THE_LOOP_BYTES else await asyncio.to_thread(whole, body)
        )
        length = (b"content-length", b"%d" % len(response.body))
        response.raw_headers = [
            length if name == b"content-length" else (name, value) for name, value in response.raw_headers
        ]
    response.raw_headers.append((b"content-encoding", coding.encode()))
    return response


async def _in_parts(parts: AsyncIterator[bytes], compressor: _Compressor) -> AsyncIterator[bytes]:
    async for part in parts:
        if len(part) < _OFF_THE_LOOP_BYTES:
            written = compressor.add(part)
        else:
            written = await asyncio.to_thread(compressor.add, part)
        if written:
            yield written
    yield compressor.end()


# -- what comes in --------------------------------------------------------------------------------------


class UnknownCoding(NotJson):
    """A body comes in a coding that is not known here; the answer says which are."""

    status = 415

    def __init__(self) -> None:
        super().__init__("The body is compressed in a way that this server does not take")


async def decompress(body: bytes, coding: str, most: int) -> bytes:
    """A body as it was before it was compressed; `TooLarge` where that has more than `most` bytes.

    No more than that is ever unpacked, whatever the body claims. Raises `UnknownCoding`, and `BadJson` for what is not of
    that coding.
    """
    expand = _EXPAND.get(coding)
    if expand is None:
        raise UnknownCoding
    try:
        if len(body) < _OFF_THE_LOOP_BYTES and most < _OFF_THE_LOOP_BYTES:
            plain = expand(body, most)
        else:
            plain = await asyncio.to_thread(expand, body, most)
    except (zlib.error, zstandard.ZstdError, brotli.error) as error:
        raise _not_of_that_coding() from error
    if len(plain) > most:
        raise TooLarge(f"The body has more than {most} bytes")
    return plain


def _from_gzip(body: bytes, most: int) -> bytes:
    stream = zlib.decompressobj(wbits=_GZIP_WINDOW)
    plain = stream.decompress(body, most + 1)
    if len(plain) <= most and (not stream.eof or stream.unused_data):
        raise _not_of_that_coding()
    return plain


def _from_zstd(body: bytes, most: int) -> bytes:
    source = io.BytesIO(body)
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    with decompressor.stream_reader(source, closefd=False) as reader:
        plain = reader.read(most + 1)
    if len(plain) <= most:
        # The reader takes what was cut short for the end, and does not look at what comes behind it.
        stream = decompressor.decompressobj()
        stream.decompress(body)
        if not stream.eof or stream.unused_data:
            raise _not_of_that_coding()
    return plain


def _from_brotli(body: bytes, most: int) -> bytes:
    stream = brotli.Decompressor()
    parts, total = [stream.process(body, output_buffer_limit=most + 1)], 0
    while parts[-1]:
        total += len(parts[-1])
        if total > most or stream.is_finished():
            break
        parts.append(stream.process(b"", output_buffer_limit=most + 1 - total))
    if total <= most and not stream.is_finished():
        raise _not_of_that_coding()
    return b"".join(parts)


_EXPAND: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _from_gzip,
    "x-gzip": _from_gzip,
    "zstd": _from_zstd,
    "br": _from_brotli,
}


KNOWN_CODINGS = ", ".join(_WHOLE)
"""As a header says it."""


def _not_of_that_coding() -> BadJson:
    return BadJson("The body is not compressed as its `Content-Encoding` says")
