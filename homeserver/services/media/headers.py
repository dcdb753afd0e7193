"""What stands beside a file in HTTP: its type, its name, whether a browser may show it (MSC2701, MSC2702)."""

from __future__ import annotations

import re
from email.message import Message
from urllib.parse import quote

OCTET_STREAM = "application/octet-stream"
MAX_NAME_LENGTH = 255
_MAX_TYPE_LENGTH = 255
# RFC 9110: a type, and parameters of which only the characters are looked at.
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+\s*(;[\x20-\x7e\t]*)?")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9 !#$&+.,;=@^_`{}~()'-]+")

INLINE_TYPES = frozenset(
    (
        "text/css",
        "text/plain",
        "text/csv",
        "application/json",
        "application/ld+json",
        "image/jpeg",
        "image/gif",
        "image/png",
        "image/apng",
        "image/webp",
        "image/avif",
        "video/mp4",
        "video/webm",
        "video/ogg",
        "video/quicktime",
        "audio/mp4",
        "audio/webm",
        "audio/aac",
        "audio/mpeg",
        "audio/ogg",
        "audio/wave",
        "audio/wav",
        "audio/x-wav",
        "audio/x-pn-wav",
        "audio/flac",
        "audio/x-flac",
    )
)
"""CS "Serving inline content"."""


def clean_content_type(content_type: str | None) -> str:
    """The type as it was told, where it is one; else `application/octet-stream`, of which nobody can say more."""
    if content_type is None or len(content_type) > _MAX_TYPE_LENGTH:
        return OCTET_STREAM
    content_type = content_type.strip()
    return content_type if _TYPE.fullmatch(content_type) else OCTET_STREAM


def content_disposition(content_type: str, name: str | None) -> str:
    """`inline` only for what no browser runs; with the name of the file, if it has one (RFC 6266)."""
    essence = content_type.partition(";")[0].strip().lower()
    disposition = "inline" if essence in INLINE_TYPES else "attachment"
    if not name:
        return disposition
    if _PLAIN_NAME.fullmatch(name):
        return f'{disposition}; filename="{name}"'
    return f"{disposition}; filename*=utf-8''{quote(name, safe='', errors='replace')}"


def name_in(disposition: str | None) -> str | None:
    """The name in the `Content-Disposition` of another server, if there is one that can be used."""
    if disposition is None:
        return None
    header = Message()
    try:
        header["Content-Disposition"] = disposition
        name = header.get_filename()
    except (ValueError, LookupError, TypeError):
        return None
    if name is None:
        return None
    name = "".join(character for character in name if character.isprintable())[:MAX_NAME_LENGTH].strip()
    return name or None
