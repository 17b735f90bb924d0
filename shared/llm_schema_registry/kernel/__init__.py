"""The service runtime that every process shares: settings, server, lifecycle, health, identity, telemetry, logs.

It knows nothing of what a service does. `process.run` is the way in; `process.Definition` is what a service fills in.
"""
