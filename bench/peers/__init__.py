"""What a user would otherwise pick, given the same work on the same disk in the same run.

Every peer syncs before it acknowledges, every connection appends to a stream of its own, and one generator
(`bench/generator.py`, with the load in `bench/peers/appends.py`) drives them all, Ringlog among them. A peer
is a server that is started here (`catalogue`) and a protocol that is spoken to it (`drivers`).
"""
