"""Links: how an edge reaches the sessions that another node owns.

One connection for each pair of nodes carries all their sessions. `messages` is what is said, `handshake` how both
sides know each other, `stream` moves the bytes; `owner` answers on the owner's side, `pool` and `remote` ask on the
edge's.
"""
