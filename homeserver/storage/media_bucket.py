"""The files of media in an S3-compatible store, which any number of processes share."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from homeserver.errors import StartupError
from homeserver.storage.media_files import FileLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from obstore.store import S3Config

_PART_BYTES = 1 << 20
# What S3 takes as the least for a part of a file.
_UPLOAD_BYTES = 5 << 20
_AT_ONCE = 2
_SECONDS = 60


class MediaBucket:
    """Files in a bucket; a file is there once all of it is, and then as safe as the store says that it is."""

    part_bytes = _PART_BYTES

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str,
        endpoint: str | None,
        region: str,
        access_key_id: str | None,
        secret_access_key: str | None,
    ) -> None:
        """Without keys they are looked for where programs find those of AWS; raises `StartupError`."""
        # Files go one by one, which every such store can.
        config: S3Config = {"bucket": bucket, "region": region, "disable_bulk_delete": True}
        if endpoint is not None:
            config["endpoint"] = endpoint
        if access_key_id is not None and secret_access_key is not None:
            config["access_key_id"] = access_key_id
            config["secret_access_key"] = secret_access_key
        elif access_key_id is not None or secret_access_key is not None:
            raise StartupError("media.s3: set both access_key_id and secret_access_key, or neither")
        try:
            self._store = S3Store(
                prefix=prefix or None,
                config=config,
                client_options={
                    "allow_http": endpoint is not None and endpoint.startswith("http:"),
                    "timeout": timedelta(seconds=_SECONDS),
                },
                retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=_SECONDS)},
            )
        except BaseError as error:
            raise StartupError(f"media.s3: the bucket cannot be used ({error})") from None

    async def write(self, name: str, parts: AsyncIterator[bytes]) -> None:
        """Keep a file."""
        source = _Source(parts)
        try:
            await obstore.put_async(
                self._store, name, source.parts(), chunk_size=_UPLOAD_BYTES, max_concurrency=_AT_ONCE
            )
        except BaseException as error:
            # In the store's words it would be hard to tell.
            if source.error is not None:
                raise source.error from None
            if isinstance(error, BaseError):
                raise _failure(error) from error
            raise

    async def read(self, name: str, start: int, end: int) -> bytes:
        """A part of a file."""
        if start == end:
            return b""
        try:
            part = bytes(await obstore.get_range_async(self._store, name, start=start, end=end))
        except (NotFoundError, FileNotFoundError) as error:
            raise FileLost(str(error)) from error
        except BaseError as error:
            raise _failure(error) from error
        if len(part) != end - start:
            raise FileLost(f"{name} has no bytes from {start} to {end}")
        return part

    async def delete(self, name: str) -> None:
        """Leave nothing of a file."""
        try:
            with contextlib.suppress(NotFoundError, FileNotFoundError):
                await obstore.delete_async(self._store, name)
        except BaseError as error:
            raise _failure(error) from error


def _failure(error: BaseError) -> OSError:
    """What went wrong; behind the first line stands what is for those who write the store's client."""
    return OSError(str(error).partition("\n")[0])


class _Source:
    """Parts, and what went wrong with them."""

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self.error: BaseException | None = None
        self._parts = parts

    async def parts(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._parts:
                yield part
        except BaseException as error:
            self.error = error
            raise
