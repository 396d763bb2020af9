"""Everything that faces a person or a network: HTTP, WebSocket, the command line."""
