"""The protocols of the peers, each spoken by hand: what a client library costs is no property of a server."""
