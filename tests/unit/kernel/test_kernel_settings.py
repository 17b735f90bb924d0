"""Settings: sources and their order, errors all at once, secrets never shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pydantic import Field, SecretStr, ValidationError

from llm_schema_registry.kernel.process import Definition, run
from llm_schema_registry.kernel.settings import (
    ControlSettings,
    DatabaseSettings,
    Problem,
    RedisSettings,
    ServerSettings,
    ServiceSettings,
)
from llm_schema_registry.kernel.settings_pages import configuration_page, effective
from llm_schema_registry.kernel.settings_sources import (
    CONFIG_FILE,
    SECRETS_DIRECTORY,
    Loaded,
    SettingsInvalid,
    load,
    options,
    variable,
)
from services.backup.settings import BackupServiceSettings
from services.registry.settings import RegistrySettings


class EverySettings(ServiceSettings):
    """All sections of the kernel."""

    database: DatabaseSettings
    redis: RedisSettings = Field(default_factory=RedisSettings)


REQUIRED = {
    "SCHEMA_REGISTRY__SERVER__LOCAL_MODE": "true",
    "SCHEMA_REGISTRY__DATABASE__URL": "postgresql://app:hunter2@db/registry",
}
DEFAULTS = {
    "server.listen_address": "0.0.0.0",
    "server.http_port": 8080,
    "server.grpc_port": 9090,
    "server.shutdown_timeout_seconds": 30,
    "server.request_timeout_seconds": 30,
    "server.tls_enabled": False,
    "server.tls_cert_path": None,
    "server.tls_key_path": None,
    "database.pool_min": 5,
    "database.pool_max": 50,
    "database.connection_timeout_seconds": 10,
    "database.statement_timeout_seconds": 30,
    "database.ssl_enabled": True,
    "redis.pool_min": 5,
    "redis.pool_max": 25,
    "redis.connection_timeout_seconds": 5,
    "redis.tls_enabled": False,
    "redis.key_prefix": "schema_registry:",
    "redis.default_ttl_seconds": 3600,
    "security.mtls_enabled": False,
    "security.ca_cert_path": None,
    "observability.metrics_enabled": True,
    "observability.metrics_path": "/metrics",
    "observability.tracing_enabled": True,
    "observability.otlp_endpoint": None,
    "observability.trace_sampling_rate": 0.1,
    "observability.log_level": "info",
    "observability.log_format": "json",
    "features.caching_enabled": True,
    "features.compression_enabled": True,
    "features.read_only_mode": False,
    "performance.max_request_body_bytes": 10485760,
    "performance.keepalive_seconds": 60,
}
"""Names and defaults that operators of the earlier system know."""


def loaded(environment: dict[str, str] | None = None) -> Loaded[EverySettings]:
    """The settings from the required options and the environment given."""
    return load(EverySettings, {**REQUIRED, **(environment or {})})


def problems(environment: dict[str, str], model: type[ServiceSettings] = EverySettings) -> dict[str, str]:
    """What is wrong, by option."""
    with pytest.raises(SettingsInvalid) as caught:
        load(model, environment)
    return {problem.option: str(problem) for problem in caught.value.problems}


@pytest.mark.parametrize(("option", "default"), DEFAULTS.items())
def test_names_and_defaults_are_kept(option: str, default: object) -> None:
    """Options of the earlier system have the same name and default."""
    assert options(EverySettings)[option].default == default


def test_later_sources_win(tmp_path: Path) -> None:
    """Default < file < secret file < environment, option by option."""
    file, secrets = tmp_path / "settings.toml", tmp_path / "secrets"
    (secrets / "server").mkdir(parents=True)
    (secrets / "..data").mkdir()
    file.write_text("[server]\nhttp_port = 1\ngrpc_port = 1\nhealth_port = 1\n")
    (secrets / "server__grpc_port").write_text("2\n")
    (secrets / "server" / "health_port").write_text("2")
    environment = {CONFIG_FILE: str(file), SECRETS_DIRECTORY: str(secrets), "SCHEMA_REGISTRY__SERVER__HEALTH_PORT": "3"}

    found = loaded(environment)

    server = found.settings.server
    assert (server.http_port, server.grpc_port, server.health_port, server.grace_seconds) == (1, 2, 3, 20)
    sources = {row.option: row.source for row in effective(found)}
    assert sources["server.http_port"] == f"file {file}"
    assert sources["server.grpc_port"] == f"secret file {secrets / 'server__grpc_port'}"
    assert sources["server.health_port"] == "environment SCHEMA_REGISTRY__SERVER__HEALTH_PORT"
    assert sources["server.grace_seconds"] == "default"


@pytest.mark.parametrize("suffix", ["toml", "yaml", "yml"])
def test_file_formats(tmp_path: Path, suffix: str) -> None:
    """TOML and YAML files say the same."""
    text = "[control]\nclient_names = ['a', 'b']\n" if suffix == "toml" else "control: {client_names: [a, b]}\n"
    (tmp_path / f"settings.{suffix}").write_text(text)

    found = loaded({CONFIG_FILE: str(tmp_path / f"settings.{suffix}")})

    assert found.settings.control.client_names == ("a", "b")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.toml", "x = ["),
        ("a.yaml", "{"),
        ("a.yaml", "- 1"),
        ("a.json", "{}"),
        ("a.toml", "x = 1"),
        ("none.toml", None),
    ],
)
def test_unreadable_files_are_told(tmp_path: Path, name: str, content: str | None) -> None:
    """A file that is missing, malformed, of another kind, or not made of sections is an error that names it."""
    if content is not None:
        (tmp_path / name).write_text(content)

    assert name in "".join(problems({**REQUIRED, CONFIG_FILE: str(tmp_path / name)}).values())


@pytest.mark.parametrize(
    ("suffix", "content", "told"),
    [
        ("yaml", "control:\n  token: hunter2: x", "mapping values are not allowed here (at line 2, column 17)"),
        ("yaml", "control: {token: 'hunter2", "found unexpected end of stream (at line 1, column 26)"),
        ("yaml", "control: {token: *hunter2 }", "found undefined alias … (at line 1, column 18)"),
        ("yaml", "control: {token: !hunter2 x}", "could not determine a constructor for the tag … (at line 1, "),
        ("yaml", "control: {token: @hunter2}", "found character '@' that cannot start any token (at line 1, "),
        ("yaml", "control: {token: hunter2", "expected ',' or '}', but got '<stream end>' (at line 1, column 25)"),
        ("yaml", "control: {token: !!int hunter2}", "a value that does not fit its tag"),
        ("yaml", "control: {token: !!bool hunter2}", "a value that does not fit its tag"),
        ("yaml", "control: {token: !!timestamp hunter2}", "a value that does not fit its tag"),
        ("yaml", "control: {token: hunter2\x07}", "special characters are not allowed (at character 25)"),
        ("yaml", "[" * 10_000 + "hunter2", "malformed YAML"),
        ("toml", "[control]\ntoken = hunter2", "Invalid value (at line 2, column 9)"),
        ("toml", "[control]\ntoken = 'hunter2", 'Expected "\'" (at end of document)'),
        ("toml", "[hunter2]\n[hunter2]", "Cannot declare (…,) twice (at line 2, column 9)"),
        ("toml", "a = {hunter2 = 1, hunter2 = 2}", "Duplicate inline table key … (at line 1, "),
        ("toml", "a = " + "[" * 10_000 + "'hunter2'", "malformed TOML"),
    ],
)
def test_content_of_files_is_not_in_errors(tmp_path: Path, suffix: str, content: str, told: str) -> None:
    """A malformed file is told by problem, line and column, without the line itself, which may hold a secret."""
    path = tmp_path / f"settings.{suffix}"
    path.write_text(content)

    found = problems({**REQUIRED, CONFIG_FILE: str(path)})

    assert list(found) == [CONFIG_FILE]
    assert told in found[CONFIG_FILE]
    assert "hunter2" not in found[CONFIG_FILE]
    assert "\n" not in found[CONFIG_FILE]


def test_every_error_at_once() -> None:
    """Wrong values, unknown names, missing options and broken rules are all in one report."""
    found = problems(
        {
            "SCHEMA_REGISTRY__SERVER__GRPC_PORT": "70000",
            "SCHEMA_REGISTRY__SERVER__DRAIN_SECONDS": "soon",
            "SCHEMA_REGISTRY__SERVR__HTTP_PORT": "1",
            "SCHEMA_REGISTRY__REDIS__POOL_MIN": "26",
            "SCHEMA_REGISTRY__OBSERVABILITY__LOG_LEVEL": "loud",
        }
    )

    assert set(found) == {
        "server.grpc_port",
        "server.drain_seconds",
        "servr.http_port",
        "observability.log_level",
        "database.url",
        "redis.pool_min",
        "security.mtls_enabled",
    }
    assert "= '70000' (from environment SCHEMA_REGISTRY__SERVER__GRPC_PORT)" in found["server.grpc_port"]
    assert "did you mean server.http_port" in found["servr.http_port"]
    assert "'debug', 'info', 'warning' or 'error'" in found["observability.log_level"]
    assert "SCHEMA_REGISTRY__DATABASE__URL" in found["database.url"]


def test_rules_are_judged_beside_wrong_values() -> None:
    """A wrong value in one section does not hide a broken rule in another."""
    wrong = {"SCHEMA_REGISTRY__SERVER__GRPC_PORT": "x", "SCHEMA_REGISTRY__REDIS__POOL_MIN": "26"}

    assert {"server.grpc_port", "redis.pool_min"} <= set(problems({**REQUIRED, **wrong}))


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("server.grpc_port", "8080", "another one than server.http_port"),
        ("observability.metrics_path", "/health/live", "health page"),
    ],
)
def test_what_would_fail_or_hide_something_later_is_told(option: str, value: str, allowed: str) -> None:
    """Options that are right alone and cannot be served together."""
    found = problems({**REQUIRED, variable(option): value})

    assert list(found) == [option]
    assert allowed in found[option]
    assert value in found[option]


def test_ports_that_are_not_opened_or_picked_may_be_equal() -> None:
    """Zero is no port, and the one for health is opened with mTLS only."""
    picked = {variable("server.http_port"): "0", variable("server.grpc_port"): "0"}
    assert loaded(picked).settings.server.grpc_port == 0

    unused = {variable("server.health_port"): "9090"}
    assert loaded(unused).settings.server.health_port == 9090
    assert "server.health_port" in problems({**REQUIRED, **unused, variable("security.mtls_enabled"): "true"})


def test_a_name_is_no_address_to_listen_on() -> None:
    """What it leads to may change; outside local mode every address is allowed."""
    [problem] = ServerSettings(listen_address="localhost").rules()

    assert (problem.option, problem.allowed) == ("server.listen_address", "must be an IP address")
    assert list(ServerSettings(listen_address="::1").rules()) == []


def test_what_callers_may_send_fits_into_a_request() -> None:
    """A limit that the server's own one hides would never be in force."""
    small = {variable("performance.max_request_body_bytes"): "2000", variable("limits.data_bytes_max"): "2001"}

    found = problems({**REQUIRED, **small}, RegistrySettings)

    assert set(found) == {"limits.data_bytes_max", "limits.schema_text_bytes_max"}
    assert "performance.max_request_body_bytes = 2000" in found["limits.data_bytes_max"]


class BetweenSettings(EverySettings):
    """Rules between sections, one of which needs the section that cannot be built."""

    def rules(self) -> Iterator[Problem]:
        """Both are always broken."""
        yield Problem("features.caching_enabled", "judged")
        yield Problem("features.read_only_mode", f"judged with {self.database.pool_max}")


def test_rules_are_judged_beside_a_missing_section() -> None:
    """Without a required option everything that does not depend on its section is still told."""
    environment = {"SCHEMA_REGISTRY__REDIS__POOL_MIN": "26"}

    missing = problems(environment, BetweenSettings)
    assert set(missing) == {"database.url", "redis.pool_min", "features.caching_enabled"}

    assert "features.read_only_mode" in problems({**REQUIRED, **environment}, BetweenSettings)


URLS = [
    ("database.url", "http://hunter2@db/registry"),
    ("database.url", "host=db password=hunter2"),
    ("database.url", "postgresql://app:hunter%zz@db/registry"),
    ("database.url", "postgresql://app:hunter2@[::1/registry"),
    ("database.url", "postgresql://app:hunter2@db/registry?sslmod=require"),
    ("database.url", "postgresql://app:hunter2\udcff@db/registry"),
    ("redis.url", "http://:hunter2@cache"),
    ("redis.url", "cache:6379"),
    ("redis.url", "redis:hunter2"),
    ("redis.url", "redis://:hunter2@cache:port"),
    ("redis.url", "redis://:hunter2@cache?socket_timeout=soon"),
    ("redis.url", "redis://:hunter2@cache?hunter2=1"),
    ("redis.url", "rediss://:hunter2@cache?ssl_cert_reqs=hunter2"),
]


@pytest.mark.option("database.url", "redis.url")
@pytest.mark.parametrize(("option", "url"), URLS)
def test_unusable_urls_are_told_without_their_value(option: str, url: str) -> None:
    """A URL that its driver could not use is an error of the settings, which says what is allowed and hides it."""
    found = problems({**REQUIRED, variable(option): url})

    assert list(found) == [option]
    assert "://" in found[option]
    assert "hunter" not in found[option]
    assert variable(option) in found[option]


@pytest.mark.parametrize(
    ("option", "url"),
    [
        ("database.url", "postgres://app:%20@one,two:5433/registry?sslmode=require"),
        ("redis.url", "redis://cache"),
        ("redis.url", "rediss://app:secret@cache:6380/1"),
        ("redis.url", "unix:///run/redis.sock?db=1"),
    ],
)
def test_usable_urls_are_taken(option: str, url: str) -> None:
    """Every form of URL that the drivers know is accepted."""
    assert loaded({variable(option): url})


def test_unusable_url_ends_the_process_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process says what is wrong and exits with status 2 before it opens anything."""
    for name, value in {**REQUIRED, "SCHEMA_REGISTRY__DATABASE__URL": "mysql://app:hunter2@db"}.items():
        monkeypatch.setenv(name, value)

    def build(_: object) -> NoReturn:
        raise AssertionError("built with wrong settings")

    assert run(Definition("every", EverySettings, build), []) == 2
    told = capsys.readouterr().err
    assert "database.url" in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("option", "value"),
    [("database.url", ""), ("control.token", "hunter2"), ("database.urll", "hunter2"), ("redis.urk", "hunter2")],
)
def test_secrets_are_not_in_errors(option: str, value: str) -> None:
    """The value of a secret, also under a mistyped name, is never in an error."""
    text = "".join(problems({**REQUIRED, variable(option): value, "SCHEMA_REGISTRY__X__Y": "1"}).values())

    assert "hunter2" not in text


def test_secrets_are_redacted_everywhere() -> None:
    """Neither the effective options nor the model's own text show a secret."""
    found = loaded({"SCHEMA_REGISTRY__CONTROL__TOKEN": "hunter2-hunter2-hunter2"})

    assert "hunter2" not in str(effective(found)) + repr(found.settings) + str(found.settings.model_dump())
    assert found.settings.control.token == SecretStr("hunter2-hunter2-hunter2")


def test_secret_of_wrong_type_is_not_in_the_librarys_error() -> None:
    """The library's own message hides its input too."""
    with pytest.raises(ValidationError) as caught:
        ControlSettings(token=SecretStr("hunter2"))

    assert "hunter2" not in str(caught.value)


def test_empty_values_count_as_not_set() -> None:
    """Templates leave empty variables behind: they set nothing. A mistyped one is still told."""
    assert loaded({"SCHEMA_REGISTRY__SERVER__GRPC_PORT": ""}).settings.server.grpc_port == 9090
    assert "server.grpc_prt" in problems({**REQUIRED, "SCHEMA_REGISTRY__SERVER__GRPC_PRT": ""})


@pytest.mark.parametrize("name", ["SCHEMA_REGISTRY_PORT", "SCHEMA_REGISTRY_SERVICE_HOST", "PATH"])
def test_variables_of_kubernetes_are_ignored(name: str) -> None:
    """With one underscore a name is none of ours: Kubernetes sets such names for a Service."""
    assert loaded({name: "tcp://10.0.0.1:9090"})


@pytest.mark.option("control.client_names")
def test_lists_are_written_with_commas() -> None:
    """In a variable the names of a list are separated by commas."""
    found = loaded({"SCHEMA_REGISTRY__CONTROL__CLIENT_NAMES": "spiffe://x/admin, ops.example.org,"})

    assert found.settings.control.client_names == ("spiffe://x/admin", "ops.example.org")


@pytest.mark.parametrize("value", ["true", "1", "True", "yes"])
def test_local_mode_binds_loopback(value: str) -> None:
    """Local mode listens on loopback without being told to."""
    assert loaded({"SCHEMA_REGISTRY__SERVER__LOCAL_MODE": value}).settings.server.listen_address == "127.0.0.1"


@pytest.mark.parametrize("address", ["0.0.0.0", "10.0.0.1", "::"])
def test_local_mode_refuses_other_addresses(address: str) -> None:
    """Local mode on another address than loopback is an error."""
    assert "server.listen_address" in problems({**REQUIRED, "SCHEMA_REGISTRY__SERVER__LISTEN_ADDRESS": address})


def test_outside_local_mode_an_authenticator_is_required() -> None:
    """Without local mode and without mTLS the error says what to set."""
    found = problems({**REQUIRED, "SCHEMA_REGISTRY__SERVER__LOCAL_MODE": "false"})

    assert "server.tls_enabled" in found["security.mtls_enabled"]


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"server.drain_seconds": "9"}, "server.shutdown_timeout_seconds"),
        ({"server.tls_enabled": "true"}, "server.tls_cert_path"),
        ({"server.tls_enabled": "true", "server.tls_key_path": "/nowhere"}, "server.tls_key_path"),
        ({"security.mtls_enabled": "true"}, "security.ca_cert_path"),
        ({"security.mtls_enabled": "true"}, "security.mtls_enabled"),
        ({"database.pool_min": "51"}, "database.pool_min"),
        ({"database.ssl_root_cert_path": "/nowhere"}, "database.ssl_root_cert_path"),
        ({"observability.otlp_endpoint": "collector:4317"}, "observability.otlp_endpoint"),
        ({"observability.metrics_path": "metrics"}, "observability.metrics_path"),
    ],
)
def test_rules_between_options(changes: dict[str, str], option: str) -> None:
    """Options that do not fit together are told, each by its name."""
    assert option in problems({**REQUIRED, **{variable(name): value for name, value in changes.items()}})


def test_settings_do_not_change() -> None:
    """A model is frozen."""
    server: Any = ServerSettings()

    with pytest.raises(ValidationError):
        server.grpc_port = 1


SHARED_FILE = """
[server]
local_mode = true
grace_seconds = 7
[database]
url = "postgresql://u@db/registry"
[redis]
key_prefix = "mine:"
[backup]
directory = "/backups"
signing_key_path = "{key}"
[archive]
seal_seconds = 3
"""


@pytest.fixture
def shared_file(tmp_path: Path) -> Path:
    """A file with sections of two services."""
    (tmp_path / "key").touch()
    file = tmp_path / "settings.toml"
    file.write_text(SHARED_FILE.format(key=tmp_path / "key"))
    return file


def test_services_share_a_file(shared_file: Path) -> None:
    """One file with the sections of both services is read by both; each takes its own and what they share."""
    registry = load(RegistrySettings, {CONFIG_FILE: str(shared_file)}).settings
    backup = load(BackupServiceSettings, {CONFIG_FILE: str(shared_file)}).settings

    assert registry.server.grace_seconds == backup.server.grace_seconds == 7
    assert (registry.redis.key_prefix, backup.archive.seal_seconds) == ("mine:", 3)


@pytest.mark.parametrize(
    ("wrong", "told_by"),
    [
        ("[server]\ngrace_second = 7", {RegistrySettings, BackupServiceSettings}),
        ("[databse]\npool_max = 7", {RegistrySettings, BackupServiceSettings}),
        ("[backup]\nkeep_dayly = 7", {BackupServiceSettings}),
        ("[redis]\nkey_prefx = 'x'", {RegistrySettings}),
    ],
)
def test_typos_in_a_shared_file_are_told(tmp_path: Path, wrong: str, told_by: set[type[ServiceSettings]]) -> None:
    """A name that is none is told by every service that has its section; a section that nobody has, by all."""
    file = tmp_path / "settings.toml"
    file.write_text(wrong)
    option = wrong[1:].replace("]\n", ".").partition(" ")[0]

    for model in (RegistrySettings, BackupServiceSettings):
        told = problems({CONFIG_FILE: str(file)}, model)
        assert ("no such option" in told.get(option, "")) is (model in told_by)


def test_page_is_named_after_the_service() -> None:
    """The title says whose options these are."""
    assert configuration_page(RegistrySettings).startswith("# Configuration of the registry service\n")
    assert configuration_page(BackupServiceSettings).startswith("# Configuration of the backup service\n")


def test_page_lists_every_option() -> None:
    """The reference page has a row for each option with default, bounds and meaning."""
    page = configuration_page(EverySettings)

    assert all(f"| `{option}`" in page for option in options(EverySettings))
    assert "| `server.grpc_port` | `9090` | whole number, ≥ 0, ≤ 65535 | gRPC port." in page
    assert "| `database.url` | required | secret text |" in page
