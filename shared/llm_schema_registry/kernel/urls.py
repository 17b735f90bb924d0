"""Whether addresses and URLs of servers can be used, found out without a connection and without repeating them."""

from __future__ import annotations

import ipaddress

import psycopg
from psycopg import conninfo

POSTGRES_SCHEMES = ("postgresql://", "postgres://")
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


def is_postgres(url: str) -> bool:
    """Whether libpq can parse the URL."""
    try:
        conninfo.conninfo_to_dict(url)
    except (psycopg.ProgrammingError, UnicodeEncodeError):
        return False
    return url.startswith(POSTGRES_SCHEMES)


def is_ip_address(text: str) -> bool:
    """Whether it is an address of IPv4 or IPv6, without brackets."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_redis(url: str) -> bool:
    """Whether the client library can make a connection object, which does not connect yet, from the URL."""
    # Here, because it takes 7 MiB and a quarter of a second, which processes without Redis do not need.
    import redis.asyncio as redis  # noqa: PLC0415

    try:
        redis.ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, redis.RedisError):
        return False
    return url.startswith(REDIS_SCHEMES)
