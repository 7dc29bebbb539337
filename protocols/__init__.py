"""What two peers must agree on: the bytes.  Pure functions and frozen dataclasses, nothing else.

A node is its Ed25519 key (identity).  Nodes of one swarm hold leaves signed by the swarm's CA,
whose key comes from the invite's secret (certificates, invite), and speak mutual TLS 1.3.  In it:

    GET  /p/hello      who are you; no identity is assumed yet
    POST /p/probe      Standing for Standing: liveness, membership, introductions
    GET  /p/layout     the layout, to say which tensor differs
    POST /p/exchange   a signed envelope and its payload, answered by the same
    POST /p/sample     some bytes, and as many back: how fast the way is
    GET  /p/state      StateOffer; GET /p/state/{digest} streams it, with Range

``PROTOCOL`` is the number both sides must share; it grows when an older node could not understand.
"""

PROTOCOL = 2
