"""The launcher with a stand-in instead of the services: `launch_stand_in.py PORTS HOME STAND_IN_OPTION...`.

PORTS: preferred gRPC, HTTP, PostgreSQL and Valkey port, with commas. With an option that begins with `--make` the
stand-in makes something before its first start.
"""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.local.__main__ import main
from deploy.local.services import Plan, Service

if __name__ == "__main__":
    grpc, http, postgres, valkey = (int(port) for port in sys.argv[1].split(","))
    program = (sys.executable, str(Path(__file__).with_name("stand_in.py")), *sys.argv[3:])
    makes = any(option.startswith("--make") for option in sys.argv[3:])
    first = ("made/key", ("--make", "{home}/made")) if makes else None
    stand_in = Service("stand_in", grpc_port=grpc, http_port=http, command=program, makes=first)
    plan = Plan(services=(stand_in,), postgres_port=postgres, valkey_port=valkey)
    sys.exit(main(["--home", sys.argv[2]], plan=plan))
