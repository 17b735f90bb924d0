"""LLM Schema Registry: the generated contract, the client, and the runtime that the services share."""
