//! Who a verified certificate says its holder is.

use std::net::IpAddr;
use std::sync::Arc;

use openssl::hash::MessageDigest;
use openssl::ssl::SslRef;
use openssl::x509::X509Ref;

use crate::nf_types::nf_types_of_certificate;

/// Who the peer's verified certificate says it is.
///
/// What each name entitles to is the caller's business. Compare DNS names without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerIdentity {
    /// NF instance ID: the UUID of the first `urn:uuid:` URI, in lower case (TS 33.310 clause 6.1.3c).
    pub nf_instance_id: Option<String>,
    /// DNS subject alternative names, in lower case, in the certificate's order.
    pub dns_names: Vec<String>,
    /// IP address subject alternative names.
    pub ip_addresses: Vec<IpAddr>,
    /// URI subject alternative names as they stand.
    pub uris: Vec<String>,
    /// NF types of the extension of RFC 9310, as they stand; none where it is absent or malformed, or names more than
    /// 16.
    pub nf_types: Vec<String>,
    /// SHA-256 of the certificate as DER, which tokens can be bound to (RFC 8705).
    pub certificate_sha256: Option<[u8; 32]>,
    /// SHA-256 of the public key (SubjectPublicKeyInfo) of every authority in the chain by which the certificate was verified,
    /// the trusted one last; none where nothing was verified. [`crate::profile::Authorities`] tells whose they are.
    pub authority_keys_sha256: Arc<[[u8; 32]]>,
    /// The last common name of the subject. For display: identities are taken from the alternative names.
    pub subject_common_name: Option<String>,
}

/// The identity in the peer's certificate, or `None` when the peer showed none.
///
/// Call it after the handshake: the contexts of [`crate::profile`] have verified the certificate by then.
pub fn peer_identity(ssl: &SslRef) -> Option<PeerIdentity> {
    let certificate = ssl.peer_certificate()?;
    Some(PeerIdentity { authority_keys_sha256: authority_keys(ssl), ..PeerIdentity::of_certificate(&certificate) })
}

/// The keys of the verified chain above the peer's own certificate. A certificate that is trusted as it is has no other authority
/// than itself.
fn authority_keys(ssl: &SslRef) -> Arc<[[u8; 32]]> {
    let Some(chain) = ssl.verified_chain() else { return Arc::default() };
    let own = usize::from(chain.len() > 1);
    // A key that cannot be read vouches for nothing.
    chain.iter().skip(own).filter_map(key_sha256).collect()
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo.
pub(crate) fn key_sha256(certificate: &X509Ref) -> Option<[u8; 32]> {
    let key = certificate.public_key().and_then(|key| key.public_key_to_der()).ok()?;
    let digest = openssl::hash::hash(MessageDigest::sha256(), &key).ok()?;
    <[u8; 32]>::try_from(&*digest).ok()
}

impl PeerIdentity {
    /// Whom a certificate names. Whether it is to be believed is for the caller to find out: an own certificate is, one that
    /// comes with a message must lead to a trusted authority.
    #[must_use]
    pub fn of_certificate(certificate: &X509Ref) -> Self {
        let mut identity = Self::default();
        if let Some(names) = certificate.subject_alt_names() {
            for name in &names {
                if let Some(dns) = name.dnsname() {
                    identity.dns_names.push(dns.to_ascii_lowercase());
                } else if let Some(address) = name.ipaddress() {
                    identity.ip_addresses.extend(ip_address(address));
                } else if let Some(uri) = name.uri() {
                    if identity.nf_instance_id.is_none() {
                        identity.nf_instance_id = nf_instance_id(uri);
                    }
                    identity.uris.push(uri.to_owned());
                }
            }
        }
        identity.nf_types = certificate.to_der().ok().and_then(|der| nf_types_of_certificate(&der)).unwrap_or_default();
        identity.certificate_sha256 =
            certificate.digest(MessageDigest::sha256()).ok().and_then(|digest| <[u8; 32]>::try_from(&*digest).ok());
        identity.subject_common_name = certificate
            .subject_name()
            .entries_by_nid(openssl::nid::Nid::COMMONNAME)
            .last()
            .and_then(|entry| entry.data().to_string().ok());
        identity
    }
}

/// The DNS names of a certificate, in lower case.
pub(crate) fn dns_names(certificate: &X509Ref) -> Vec<String> {
    PeerIdentity::of_certificate(certificate).dns_names
}

/// The octets of an iPAddress name (RFC 5280 clause 4.2.1.6); of another length they name nothing.
fn ip_address(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// The UUID of a `urn:uuid:` URI (RFC 9562 clause 4); the URN part and the digits compare without case.
fn nf_instance_id(uri: &str) -> Option<String> {
    let prefix = uri.get(..URN_UUID.len())?;
    let uuid = uri.get(URN_UUID.len()..)?;
    let well_formed = uuid.len() == 36
        && uuid.bytes().enumerate().all(|(at, octet)| match at {
            8 | 13 | 18 | 23 => octet == b'-',
            _ => octet.is_ascii_hexdigit(),
        });
    (prefix.eq_ignore_ascii_case(URN_UUID) && well_formed).then(|| uuid.to_ascii_lowercase())
}

const URN_UUID: &str = "urn:uuid:";
