"""`python -m llm_schema_registry.cli` is `llmsr`."""

from llm_schema_registry.cli.main import run

run()
