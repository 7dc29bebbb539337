"""Certificates: leaves of the swarm's own CA, and whose they are."""

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from covey.protocols import certificates, limits
from covey.protocols.errors import Forged, TooLarge
from covey.protocols.identity import Identity
from tests.protocols.examples import SECRET

NODE = Identity(b"n" * 32)
LEAF = certificates.leaf(SECRET, NODE)


def test_a_leaf_is_its_nodes_and_its_swarms() -> None:
    assert certificates.peer_of(LEAF) == NODE.peer
    leaf = x509.load_der_x509_certificate(LEAF)
    ca = x509.load_der_x509_certificate(certificates.authority(SECRET))
    leaf.verify_directly_issued_by(ca)
    ca.verify_directly_issued_by(ca)
    other = x509.load_der_x509_certificate(certificates.authority(b"o" * 32))
    with pytest.raises(InvalidSignature):
        leaf.verify_directly_issued_by(other)


def test_a_leaf_issues_nothing_and_names_nobody() -> None:
    leaf = x509.load_der_x509_certificate(LEAF)
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert [attribute.value for attribute in leaf.subject] == ["covey node"]
    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_the_authority_signs_leaves_only() -> None:
    ca = x509.load_der_x509_certificate(certificates.authority(SECRET))
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature


def test_every_member_derives_the_same_authority() -> None:
    assert certificates.authority(SECRET) == certificates.authority(bytes(SECRET))
    assert certificates.leaf(SECRET, NODE) == LEAF
    assert certificates.authority(SECRET) != certificates.authority(b"o" * 32)
    assert len(LEAF) < limits.CERTIFICATE_BYTES_MAX / 4


def test_a_swarm_id_names_the_swarm_and_not_its_secret() -> None:
    assert len(certificates.swarm_id(SECRET)) == 32
    assert certificates.swarm_id(SECRET) == certificates.swarm_id(SECRET)
    assert certificates.swarm_id(SECRET) != certificates.swarm_id(b"o" * 32)
    assert SECRET not in certificates.authority(SECRET)


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33)])
def test_a_secret_is_32_bytes(secret: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        certificates.authority(secret)


def test_openssl_loads_the_chain(tmp_path: Path) -> None:
    chain = tmp_path / "node.pem"
    chain.write_bytes(certificates.pem(LEAF, NODE))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    context.load_verify_locations(cadata=certificates.authority(SECRET))
    assert context.cert_store_stats()["x509_ca"] == 1


def self_signed(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    now = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, digest)
        .public_bytes(Encoding.DER)
    )


def test_another_kind_of_key_is_nobody() -> None:
    with pytest.raises(Forged, match="no Ed25519 key"):
        certificates.peer_of(self_signed(ec.generate_private_key(ec.SECP256R1())))
    agreed = x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(Forged, match="no Ed25519 key"):
        # The object id of X25519 differs from Ed25519's in its last byte.
        certificates.peer_of(
            LEAF.replace(
                b"\x2b\x65\x70\x03\x21\x00" + NODE.peer.key, b"\x2b\x65\x6e\x03\x21\x00" + agreed
            )
        )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30\x00",
        LEAF[:-1],
        LEAF + b"\x00",
        LEAF.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x42"),  # version 67
        LEAF.replace(b"\x2b\x65\x70", b"\x2b\x65\x10"),  # an unknown kind of key
        certificates.pem(LEAF, NODE),
    ],
)
def test_what_is_no_certificate(data: bytes) -> None:
    with pytest.raises(Forged, match="does not parse"):
        certificates.peer_of(data)


def test_a_huge_certificate_is_not_parsed() -> None:
    with pytest.raises(TooLarge, match="5000 bytes"):
        certificates.peer_of(bytes(5000))
