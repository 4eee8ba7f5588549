"""What all services share: errors, configuration, rpc, coordination and telemetry.

Imports no service.
"""
