"""Starts a whole registry on this machine and stops it in order.

Start: PostgreSQL and Valkey together → role and database → services. Stop: services one after the other in the order of
the plan → Valkey → PostgreSQL. A service that ends with the status that asks for it is started again.
Every child is a session of its own, so Ctrl-C reaches the launcher only; and the kernel stops each child when the
launcher dies, so kill -9 leaves none behind.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psycopg
from psycopg import sql

from deploy.local import banner, services
from deploy.local.child import POLL_SECONDS, Child, ChildFailed, Identity, run, tail
from deploy.local.home import Home
from deploy.local.ports import Claims
from deploy.local.postgres import Postgres
from deploy.local.services import ROOT, Plan, Service
from deploy.local.valkey import Valkey

ROLE = "registry"
READY_SECONDS = 60
STOP_SECONDS = 40
"""Above the services' own shutdown timeout of 30 s."""
TOGETHER_SECONDS = 1.0

Say = Callable[[str], None]


class Interrupted(Exception):
    """A signal asked to stop."""


class AllEnded(Exception):
    """Every service has ended in order, as somebody asked it to."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A service with its child and its ports."""

    service: Service
    child: Child
    grpc_port: int
    http_port: int


class Signals:
    """Counts the signals that ask to stop: the first asks, the second forces.

    Whoever ends a whole group of processes ends make as well, which passes a SIGTERM on: what comes at about the same
    time is one request, unless somebody presses Ctrl-C again.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first = 0.0

    def install(self) -> None:
        """Counts SIGINT, SIGTERM and SIGHUP from now on instead of dying of them."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        self._first = self._first or now
        if not self.count or number == signal.SIGINT or now > self._first + TOGETHER_SECONDS:
            self.count += 1

    def check(self) -> None:
        """Raises Interrupted once a signal came."""
        if self.count:
            raise Interrupted

    @property
    def forced(self) -> bool:
        """Whether a second signal came."""
        return self.count > 1


class Launcher:
    """One local registry, from start to stop."""

    def __init__(self, home: Home, plan: Plan, *, signals: Signals, say: Say) -> None:
        self._home = home
        self._plan = plan
        self._signals = signals
        self._say = say
        self._ports = Claims()
        self._placed: list[Placed] = []
        self._postgres: Postgres | None = None
        self._valkey: Valkey | None = None

    def run(self) -> int:
        """Starts everything, waits for a signal or the end of a child, stops everything; returns the exit code.

        0 after a signal and when all services were stopped in order, 1 when something failed or the stop was forced.
        """
        code = 0
        try:
            self._start()
            self._watch()
        except Interrupted:
            self._say("stopping (Ctrl-C again forces)")
        except AllEnded:
            self._say("every service was stopped: stopping the rest")
        except (ChildFailed, psycopg.Error, subprocess.SubprocessError, OSError) as error:
            # Ctrl-C in the middle of initdb reaches it too: its failure is then no failure of ours.
            code = 0 if self._signals.count else 1
            self._say(str(error) if code else "stopping (Ctrl-C again forces)")
        return code if self._stop() else 1

    def _start(self) -> None:
        began = time.monotonic()
        postgres = self._postgres = Postgres(self._home.path, port=self._ports.take(self._plan.postgres_port))
        valkey = self._valkey = Valkey(self._home.path, port=self._ports.take(self._plan.valkey_port))
        valkey.launch()
        if postgres.initialise():
            self._say(f"made a PostgreSQL {postgres.install.major} cluster in {postgres.data}")
        self._signals.check()
        postgres.launch()
        self._await(postgres.child, postgres.accepts)
        self._say(f"PostgreSQL {postgres.install.major} ({postgres.install.source}) is ready on port {postgres.port}")
        self._await(valkey.child, valkey.answers)
        self._say(f"Valkey is ready on port {valkey.port}")
        database_url = prepare_database(postgres, self._home.secret("database_password"))
        self._start_services(database_url, valkey.url)
        self._say(f"started in {time.monotonic() - began:.1f} s\n\n{self._banner()}\n")

    def _start_services(self, database_url: str, redis_url: str) -> None:
        secrets = services.secret_options(
            database_url=database_url,
            redis_url=redis_url,
            control_token=self._home.secret("control_token"),
            admin_token=self._home.secret("admin_token"),
        )
        folder = self._home.write_secrets("service-secrets", secrets)
        for service in self._plan.services:
            placed = self._place(service, folder)
            self._placed.append(placed)
            placed.child.start()
        for placed in self._placed:
            self._await(placed.child, functools.partial(services.is_ready, placed.http_port))
            self._say(f"{placed.service.name} is ready: gRPC port {placed.grpc_port}, HTTP port {placed.http_port}")

    def _place(self, service: Service, secrets_folder: Path) -> Placed:
        self._make_first(service)
        grpc_port, http_port = self._ports.take(service.grpc_port), self._ports.take(service.http_port)
        ports = {placed.service.name: placed.grpc_port for placed in self._placed} | {service.name: grpc_port}
        child = Child(
            name=service.name,
            command=service.program,
            log=self._home.path / f"{service.name}.log",
            stop_signal=signal.SIGTERM,
            cwd=ROOT,
            env={
                **services.options(service, self._home.path, ports, http_port=http_port),
                services.SECRETS_FOLDER_VARIABLE: str(secrets_folder),
                "PYTHONPATH": _search_path(),
            },
        )
        return Placed(service, child, grpc_port, http_port)

    def _make_first(self, service: Service) -> None:
        """Makes what a service needs before its first start. Raises ChildFailed, subprocess.TimeoutExpired."""
        if service.makes is None:
            return
        made, arguments = service.makes
        if (self._home.path / made).exists():
            return
        words = [word.format(home=self._home.path) for word in arguments]
        answer = run(
            [*service.program, *words],
            identity=Identity(),
            limit_seconds=READY_SECONDS,
            cwd=ROOT,
            env={"PYTHONPATH": _search_path()},
        )
        # Ctrl-C reaches this child too: its end is then no failure of ours.
        self._signals.check()
        if answer.returncode != 0:
            raise ChildFailed(
                f"{service.name} could not make {self._home.path / made} (exit code {answer.returncode}); it said:\n"
                f"{tail(answer.stderr)}"
            )

    def _await(self, child: Child, ready: Callable[[], bool]) -> None:
        """Waits until a child is ready, a signal comes, or any child ends."""

        def ready_or_stopped() -> bool:
            self._signals.check()
            self._check_children({child.name})
            return ready()

        child.wait_until(ready_or_stopped, limit_seconds=READY_SECONDS)

    def _watch(self) -> None:
        """Returns never: raises Interrupted at a signal, AllEnded, ChildFailed when a child ends otherwise.

        A service that ended in order, because it was asked to, stays ended; the others go on.
        """
        ended: set[str] = set()
        while True:
            self._signals.check()
            for placed in self._placed:
                child = placed.child
                if child.exit_code == services.RESTART:
                    self._say(f"{child.name} asks to be started again")
                    child.start()
                elif child.exit_code == 0 and child.name not in ended:
                    ended.add(child.name)
                    self._say(f"{child.name} was stopped")
            if len(ended) == len(self._placed):
                raise AllEnded
            self._check_children(ended)
            time.sleep(POLL_SECONDS)

    def _children(self) -> list[Child]:
        """Children in the order of their stop."""
        servers = [server.child for server in (self._valkey, self._postgres) if server]
        return [placed.child for placed in self._placed] + servers

    def _check_children(self, apart_from: Collection[str]) -> None:
        for child in self._children():
            if child.name not in apart_from and child.exit_code is not None:
                raise ChildFailed(
                    f"{child.name} ended by itself with code {child.exit_code}; its log {child.log} ends:\n"
                    f"{child.log_tail()}"
                )

    def _stop(self) -> bool:
        """Stops what runs, one after the other: what comes later keeps what the ones before it wrote last. Returns
        whether everything stopped in time, unforced."""
        orderly = []
        for child in self._children():
            began = time.monotonic()
            child.send(child.stop_signal)
            orderly.append(self._wait_stopped(child, began))
        self._ports.close()
        self._say("stopped" if all(orderly) else "stopped, not everything in order")
        return all(orderly)

    def _wait_stopped(self, child: Child, began: float) -> bool:
        """Waits for a child that got its stop signal, once: to a service a second one means force."""
        if not child.started:
            return True
        while child.running and not self._signals.forced and time.monotonic() - began < STOP_SECONDS:
            time.sleep(POLL_SECONDS)
        orderly = not child.running
        child.kill()
        self._say(f"{child.name} {'stopped' if orderly else 'killed'} after {time.monotonic() - began:.1f} s")
        return orderly

    def _banner(self) -> str:
        postgres, valkey = self._postgres, self._valkey
        assert postgres is not None, "the banner comes after the start"
        assert valkey is not None, "the banner comes after the start"
        return banner.text(
            banner.Facts(
                services=tuple(
                    banner.Running(placed.service.name, placed.grpc_port, placed.http_port) for placed in self._placed
                ),
                home=self._home.path,
                postgres=f"PostgreSQL {postgres.install.major}",
                psql=postgres.install.bin / "psql",
                database_port=postgres.port,
                database_role=ROLE,
                database_password=self._home.path / "secrets" / "database_password",
                control_token=self._home.path / "secrets" / "control_token",
                admin_token=self._home.path / "secrets" / "admin_token",
                valkey_port=valkey.port,
            )
        )


def _search_path() -> str:
    """Where the services' code is."""
    return os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "shared"), os.environ.get("PYTHONPATH", ""))))


def prepare_database(postgres: Postgres, password: str) -> str:
    """Makes the services' role, which is no superuser, and its database where missing; returns the URL."""
    role = sql.Identifier(ROLE)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        with contextlib.suppress(psycopg.errors.DuplicateObject):
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB").format(role))
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(password)))
        with contextlib.suppress(psycopg.errors.DuplicateDatabase):
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0").format(role, role))
    return postgres.database_url(ROLE, role=ROLE, password=password)
