"""The client library: channel, errors decoded into their classes, and the services' stubs behind them."""

from llm_schema_registry.client.channel import Tls, open_channel
from llm_schema_registry.client.decode import from_rpc_error
from llm_schema_registry.client.registry import RegistryClient
from llm_schema_registry.client.service_config import service_config

__all__ = ["RegistryClient", "Tls", "from_rpc_error", "open_channel", "service_config"]
