"""The schema as an append-only list of migrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.storage.migrations import (
    m0001_log,
    m0002_rooms,
    m0003_accounts,
    m0004_user_data,
    m0005_directory,
    m0006_people,
    m0007_to_device,
    m0008_device_keys,
    m0009_device_lists,
    m0010_key_backups,
    m0011_forks,
    m0012_gaps,
    m0013_staged_events,
    m0014_join_jobs,
    m0015_server_keys,
    m0016_destinations,
    m0017_openid_tokens,
    m0018_memberships_elsewhere,
    m0019_remote_device_lists,
    m0020_missed,
    m0021_media,
    m0022_delivery_status,
    m0023_sliding_sync,
    m0024_owed_rooms,
    m0025_missed_history,
    m0026_handovers,
    m0027_thread_subscriptions,
    m0028_said_positions,
    m0029_room_arrivals,
)

if TYPE_CHECKING:
    from homeserver.storage.migrations.migration import Migration
    from homeserver.storage.retention import Retention

_MODULES = (
    m0001_log,
    m0002_rooms,
    m0003_accounts,
    m0004_user_data,
    m0005_directory,
    m0006_people,
    m0007_to_device,
    m0008_device_keys,
    m0009_device_lists,
    m0010_key_backups,
    m0011_forks,
    m0012_gaps,
    m0013_staged_events,
    m0014_join_jobs,
    m0015_server_keys,
    m0016_destinations,
    m0017_openid_tokens,
    m0018_memberships_elsewhere,
    m0019_remote_device_lists,
    m0020_missed,
    m0021_media,
    m0022_delivery_status,
    m0023_sliding_sync,
    m0024_owed_rooms,
    m0025_missed_history,
    m0026_handovers,
    m0027_thread_subscriptions,
    m0028_said_positions,
    m0029_room_arrivals,
)

MIGRATIONS: tuple[Migration, ...] = tuple(module.MIGRATION for module in _MODULES)
"""Every migration, in order; a number is never used again, a statement never changed once released."""

RETENTION: dict[str, Retention] = {
    table: retention for module in _MODULES for table, retention in module.RETENTION.items()
}
"""What bounds and prunes each table."""
