"""What two peers must agree on: the bytes.  Pure functions and frozen dataclasses, nothing else.

A node is its Ed25519 key (identity).  Nodes of one swarm hold leaves signed by the swarm's CA,
whose key comes from the invite's secret (certificates, invite), and speak mutual TLS 1.3.  In it:

    GET  /p/hello      who are you; no identity is assumed yet
    POST /p/probe      Standing for Standing: liveness, membership, introductions
    GET  /p/layout     the layout, to say which tensor differs
    POST /p/sample     some bytes, and as many back: how fast the way is
    GET  /p/state      StateOffer; GET /p/state/{digest} streams it, with Range

Exchanges have a connection of their own (ALPN covey-exchange/1) without HTTP: chunks, each with its
length as 4 bytes, big-endian, whose highest bit marks a message's last.  A message is its
announcement, the payload's chunks, and the signed envelope (envelope.py), which repeats neither.

``PROTOCOL`` is the number both sides must share; it grows when an older node could not understand.
"""

PROTOCOL = 5
