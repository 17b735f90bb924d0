"""The client library: channel, errors decoded into their classes, and the services' stubs behind them."""

from llm_schema_registry.client.admin import AdminClient
from llm_schema_registry.client.backup import BackupClient
from llm_schema_registry.client.channel import Tls, open_channel
from llm_schema_registry.client.control import ControlClient
from llm_schema_registry.client.decode import error_of, from_rpc_error, transport_words
from llm_schema_registry.client.registry import RegistryClient
from llm_schema_registry.client.service_config import service_config

__all__ = [
    "AdminClient",
    "BackupClient",
    "ControlClient",
    "RegistryClient",
    "Tls",
    "error_of",
    "from_rpc_error",
    "open_channel",
    "service_config",
    "transport_words",
]
