"""Every bound on what a peer or a learner may send, with the relations between them asserted."""

KIB = 1024
MIB = 1024 * KIB

MESSAGE_BYTES_MAX = 8 * KIB  # without its payload
CHUNK_BYTES_MAX = MIB  # of a payload, at once
CONTROL_BYTES_MAX = 256 * KIB  # a hello, a probe, an answer to one
SAMPLE_BYTES_MAX = 4 * MIB  # sent to measure the way to a peer, and sent back by it
LAYOUT_BYTES_MAX = 4 * MIB  # an encoded layout: about 40 000 tensors
LINK_FRAME_BYTES_MAX = 8 * MIB  # learner to node; carries a layout

TENSORS_MAX = 40_000
DIMENSIONS_MAX = 16
NAME_BYTES_MAX = 512
PARAMETERS_MAX = 4_000_000_000  # of one model

CONTAINERS_MAX = 100_000  # lists and maps in one message; an empty one takes 60 times its byte
CERTIFICATE_BYTES_MAX = 4 * KIB  # DER; a node's own is 335 bytes

REASON_CHARS_MAX = 64
DETAIL_CHARS_MAX = 1024
NAME_CHARS_MAX = 64  # of a node, a swarm, a version
ADDRESS_CHARS_MAX = 128
ADDRESSES_PER_PEER_MAX = 8
PEERS_PER_PROBE_MAX = 32  # peers introduced in one probe answer
PEERS_MAX = 1024  # peers a node remembers
UNVERIFIED_MAX = 256  # addresses known but never authenticated (mDNS spoofing bound)

PUSH_WEIGHT_MAX = 1  # of one push, in nodes' worth; a node's own is 1 on average
AGE_MAX = 2**62 - 1  # outer steps
LINK_BYTES_PER_S_MIN = 125_000  # 1 Mbit/s: over a slower link nobody learns

REPLAY_WINDOW = 1024  # sequence numbers below the highest that may still arrive

assert MESSAGE_BYTES_MAX < CHUNK_BYTES_MAX
assert MESSAGE_BYTES_MAX < CONTROL_BYTES_MAX < LAYOUT_BYTES_MAX < LINK_FRAME_BYTES_MAX
assert PEERS_PER_PROBE_MAX <= PEERS_MAX
assert CONTAINERS_MAX >= 2 * TENSORS_MAX + 1  # a layout: a row and a shape for each tensor
