"""Databases on PostgreSQL that are as good as new: emptying one is many times faster than copying the schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from tests.postgresql import Cluster

# What is in a new database is kept in a schema of its own, where nothing of the server looks.
_KEEP = """
DO $$
DECLARE name text; filled boolean;
BEGIN
    CREATE SCHEMA initial;
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM public.%I)', name) INTO filled;
        IF filled THEN
            EXECUTE format('CREATE TABLE initial.%I AS TABLE public.%I', name, name);
        END IF;
    END LOOP;
END $$
"""
_EMPTY = """
DO $$
DECLARE name text; filled boolean; tables text := '';
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM public.%I)', name) INTO filled;
        IF filled THEN
            tables := tables || format(', public.%I', name);
        END IF;
    END LOOP;
    EXECUTE 'TRUNCATE ' || substr(tables, 3);
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'initial' LOOP
        EXECUTE format('INSERT INTO public.%I TABLE initial.%I', name, name);
    END LOOP;
END $$
"""
_END_OTHERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
# Whatever a test does to the schema changes one of these.
_SCHEMA = """
SELECT (SELECT array_agg((oid, relname, relnatts, relchecks) ORDER BY oid)::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace),
    (SELECT count(*) FROM pg_attribute WHERE NOT attisdropped), (SELECT count(*) FROM pg_constraint),
    (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_namespace)
"""


class FreshDatabases:
    """Hands out databases with the schema in them and nothing else, made once and emptied after each use."""

    def __init__(self, cluster: Cluster, template: str) -> None:
        self._cluster = cluster
        self._template = template
        self._free: list[str] = []
        self._schemas: dict[str, Any] = {}

    async def take(self) -> str:
        """The name of a database that nobody else uses."""
        if self._free:
            return self._free.pop()
        name = await self._cluster.create_database(self._template)
        connection = await asyncpg.connect(self._cluster.url(name))
        try:
            await connection.execute(_KEEP)
            self._schemas[name] = await connection.fetchrow(_SCHEMA)
        finally:
            await connection.close()
        return name

    async def give_back(self, name: str) -> None:
        """Empty a database for the next one, whoever still uses it; one whose schema was changed is dropped."""
        try:
            connection = await asyncpg.connect(self._cluster.url(name))
        except (asyncpg.PostgresError, OSError):
            await self._cluster.drop_database(name)
            return
        try:
            await connection.execute(_END_OTHERS)
            is_whole = await connection.fetchrow(_SCHEMA) == self._schemas[name]
            if is_whole:
                await connection.execute(_EMPTY)
        finally:
            await connection.close()
        if is_whole:
            self._free.append(name)
        else:
            await self._cluster.drop_database(name)
