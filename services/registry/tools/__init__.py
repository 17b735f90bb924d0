"""What a restore needs of the registry's own code, as commands that another service runs as children.

    python -m services.registry replay        reads rows of the history from standard input and applies them
    python -m services.registry check         reads a whole database and says what is wrong with it
    python -m services.registry begin-epoch   begins a new line of the history in a restored database

The database is the one of the registry's settings; `--schema` names a schema of it other than `registry`. Each prints
JSON lines, the last of which is the result; command.py says which. Nobody may serve a place that is replayed into.
"""

TOOLS = ("replay", "check", "begin-epoch")
