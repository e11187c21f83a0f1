"""Which certificate is the leaf, to whom the key belongs, and who issued whom (RFC 5280 §6.1)."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from secrets_app.certificate_files.formats import CONTENT, PRIVATE_KEY, Unreadable

SHORTEST_RSA_BITS = 2048
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


def order(certificates: list[x509.Certificate], key: PrivateKeyTypes | None) -> list[x509.Certificate]:
    """Return the certificates with the leaf first, each after one that it issued; repetitions are dropped.

    The leaf is the certificate of ``key``; without a key, the one that issued none of the others. Where two issuers are given
    for one certificate (a cross-signed root), both are kept. Raises ``Unreadable`` if there is no leaf or more than one, or if
    a certificate belongs to none of the others.
    """
    pending = list(dict.fromkeys(certificates))
    leaf = _leaf_without_key(pending) if key is None else _leaf_of(key, pending)
    pending.remove(leaf)
    ordered = [leaf]
    for issued in ordered:
        issuers = [issuer for issuer in pending if _has_issued(issuer, issued)]
        ordered += issuers
        pending = [certificate for certificate in pending if certificate not in issuers]
    if pending:
        raise Unreadable(CONTENT, "Holds a certificate that belongs to none of the others.")
    return ordered


def check_strength(leaf: x509.Certificate) -> None:
    """Raise ``Unreadable`` unless TLS can use the key of ``leaf``: RSA from 2048 bits, P-256, P-384, P-521, Ed25519, Ed448."""
    key = _public_key(leaf)
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < SHORTEST_RSA_BITS:
            raise Unreadable(CONTENT, f"Its RSA key is shorter than {SHORTEST_RSA_BITS} bits.")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, CURVES):
            raise Unreadable(CONTENT, "Its key is on a curve other than P-256, P-384 and P-521.")
    elif not isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        raise Unreadable(CONTENT, "Its key must be RSA, EC, Ed25519 or Ed448.")


def _leaf_of(key: PrivateKeyTypes, certificates: list[x509.Certificate]) -> x509.Certificate:
    public = key.public_key()
    owners = [certificate for certificate in certificates if _public_key(certificate) == public]
    if not owners:
        raise Unreadable(PRIVATE_KEY, "Does not belong to the certificate.")
    if len(owners) > 1:
        raise Unreadable(CONTENT, "Holds two certificates of the private key; send one of them.")
    return owners[0]


def _leaf_without_key(certificates: list[x509.Certificate]) -> x509.Certificate:
    leaves = [
        certificate
        for certificate in certificates
        if not any(_has_issued(certificate, other) for other in certificates if other != certificate)
    ]
    if len(leaves) != 1:
        raise Unreadable(CONTENT, "Holds certificates that are not one chain.")
    return leaves[0]


def _has_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether names and signature both say so."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _public_key(certificate: x509.Certificate) -> object:
    """The public key; ``None`` for one of a kind that the library does not know."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
