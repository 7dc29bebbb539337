"""The swarm's certificate authority and a node's leaf, as X.509 bytes.

Open mode (v1): the CA's Ed25519 key is derived from the invite's 256-bit secret, so every member
can issue its own leaf.  The CA proves membership; TLS 1.3's CertificateVerify proves possession of
the leaf's own key, which is the node's identity.  Pure functions: the caller brings the secret.
"""

import datetime
import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from covey.protocols import limits
from covey.protocols.errors import Forged, TooLarge
from covey.protocols.identity import Identity, PeerId

SECRET_BYTES = 32
# Wide open: clocks on a LAN are wrong, and membership ends by rotating the secret, not by a date.
_NOT_BEFORE = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(2099, 12, 31, tzinfo=datetime.UTC)


def _authority_key(secret: bytes) -> Ed25519PrivateKey:
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a swarm secret is {SECRET_BYTES} bytes")
    seed = hashlib.blake2b(b"covey/swarm-ca/1", key=secret, digest_size=32).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


def swarm_id(secret: bytes) -> bytes:
    """SHA-256 of the CA's public key: names the swarm without giving its secret away."""
    public = _authority_key(secret).public_key()
    return hashlib.sha256(b"covey/swarm/1\0" + public.public_bytes_raw()).digest()


def authority(secret: bytes) -> bytes:
    """The swarm's self-signed CA certificate, DER."""
    key = _authority_key(secret)
    builder = _builder("covey swarm", key.public_key(), key, serial=1)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return _signed(builder.add_extension(_usage(signs_certificates=True), critical=True), key)


def leaf(secret: bytes, identity: Identity) -> bytes:
    """This node's certificate, DER, signed by the swarm's CA.  It names no host."""
    key = _authority_key(secret)
    subject = Ed25519PublicKey.from_public_bytes(identity.peer.key)
    serial = int.from_bytes(hashlib.sha256(identity.peer.key).digest()[:16], "big") | 1
    builder = _builder("covey node", subject, key, serial=serial)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    return _signed(builder.add_extension(_usage(signs_certificates=False), critical=True), key)


def pem(certificate: bytes, identity: Identity) -> bytes:
    """The private key and the certificate in PEM, as ssl.SSLContext.load_cert_chain reads them."""
    key = Ed25519PrivateKey.from_private_bytes(identity.seed).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    loaded = x509.load_der_x509_certificate(certificate)
    return key + loaded.public_bytes(serialization.Encoding.PEM)


def peer_of(certificate: bytes) -> PeerId:
    """The node a leaf belongs to.  Raises TooLarge, or Forged if it holds no Ed25519 key."""
    if len(certificate) > limits.CERTIFICATE_BYTES_MAX:
        raise TooLarge(f"a certificate of {len(certificate)} bytes")
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise Forged("the certificate does not parse") from error
    if not isinstance(key, Ed25519PublicKey):
        raise Forged("the certificate holds no Ed25519 key")
    return PeerId(key.public_bytes_raw())


def _builder(
    name: str, subject: Ed25519PublicKey, issuer: Ed25519PrivateKey, serial: int
) -> x509.CertificateBuilder:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named("covey swarm"))
        .public_key(subject)
        .serial_number(serial)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(subject), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False
        )
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: x509.CertificateBuilder, key: Ed25519PrivateKey) -> bytes:
    return builder.sign(key, algorithm=None).public_bytes(serialization.Encoding.DER)
