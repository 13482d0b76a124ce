"""The server on a socket: transport, its faults, control requests."""
