//! The one TLS profile of every interface (TS 33.210 clause 6.2, narrowed by TS 33.501 clause 13.1 for HTTP/2).
//!
//! TLS 1.2 and 1.3; forward secrecy and AEAD only; no compression, no renegotiation, no resumption: every
//! connection proves its peer again, so a withdrawn certificate cannot live on in a session ticket.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    AlpnError, Ssl, SslContext, SslContextBuilder, SslContextRef, SslMethod, SslMode, SslOptions, SslRef,
    SslSessionCacheMode, SslVerifyMode, SslVersion, select_next_proto,
};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509CheckFlags;
use openssl::x509::{X509, X509Ref};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A certificate, its private key and the authority that its peers' certificates must come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM: the own certificate first, then any intermediate certificates.
    pub certificate: PathBuf,
    /// PEM: the private key of the own certificate.
    pub key: PathBuf,
    /// PEM: one or more certificates of authorities trusted to vouch for peers.
    pub ca: PathBuf,
}

/// Why no TLS context could be made. All of these are configuration faults, found at start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The file is missing or may not be read by this user.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file named in the configuration.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not the PEM it should be, or holds nothing.
    #[error("{path} does not hold a PEM {expected}")]
    NotPem {
        /// The file named in the configuration.
        path: PathBuf,
        /// "certificate" or "private key".
        expected: &'static str,
    },
    /// The private key does not belong to the certificate.
    #[error("the private key {key} does not belong to the certificate {certificate}")]
    KeyMismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// OpenSSL refused a setting; most likely the key or certificate is weaker than the profile allows.
    #[error("OpenSSL refused the TLS profile")]
    OpenSsl(#[from] ErrorStack),
}

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
    /// The last common name of the subject. For display: identities are taken from the alternative names.
    pub subject_common_name: Option<String>,
}

/// A server context that demands and verifies a client certificate, and speaks HTTP/2 (ALPN `h2`) only.
///
/// A client that offers ALPN without `h2` gets `no_application_protocol`; one that offers no ALPN at all
/// finishes the handshake without a selected protocol, which the HTTP/2 layer above treats as it likes.
///
/// # Errors
/// [`ProfileError`], naming the file at fault.
pub fn mutual_tls_server(files: &CertificateFiles) -> Result<SslContext, ProfileError> {
    let mut context = SslContextBuilder::new(SslMethod::tls_server())?;
    let authorities = mutual_tls(&mut context, files)?;
    context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    let mut names = Stack::new()?;
    for authority in &authorities {
        names.push(authority.subject_name().to_owned()?)?;
    }
    context.set_client_ca_list(names);
    context.set_alpn_select_callback(|_, offered| select_next_proto(ALPN_H2, offered).ok_or(AlpnError::ALERT_FATAL));
    Ok(context.build())
}

/// A client context that shows its certificate, verifies the server's, and offers HTTP/2 (ALPN `h2`).
///
/// The name to verify belongs to a connection, not to the context: make the session with [`client_session`].
///
/// # Errors
/// [`ProfileError`], naming the file at fault.
pub fn mutual_tls_client(files: &CertificateFiles) -> Result<SslContext, ProfileError> {
    let mut context = SslContextBuilder::new(SslMethod::tls_client())?;
    mutual_tls(&mut context, files)?;
    context.set_verify(SslVerifyMode::PEER);
    context.set_alpn_protos(ALPN_H2)?;
    Ok(context.build())
}

/// One connection's session of a [`mutual_tls_client`] context: SNI is set to `host` and the server's
/// certificate must carry `host` (DNS name, or IP address without brackets) as an alternative name.
///
/// # Errors
/// [`ProfileError::OpenSsl`] when `host` is no name or memory is short.
pub fn client_session(context: &SslContextRef, host: &str) -> Result<Ssl, ProfileError> {
    let mut session = Ssl::new(context)?;
    // Left to itself, OpenSSL takes the subject's common name where no alternative name is a DNS name (RFC 9525
    // clause 2: never): any NF certificate with a URI alone would then do for whatever its subject says.
    session.param_mut().set_hostflags(X509CheckFlags::NEVER_CHECK_SUBJECT | X509CheckFlags::NO_PARTIAL_WILDCARDS);
    match host.parse() {
        Ok(address) => session.param_mut().set_ip(address)?,
        Err(_) => {
            session.set_hostname(host)?;
            session.param_mut().set_host(host)?;
        }
    }
    Ok(session)
}

/// The identity in the peer's certificate, or `None` when the peer showed none.
///
/// Call it after the handshake: the contexts of this module have verified the certificate by then.
pub fn peer_identity(ssl: &SslRef) -> Option<PeerIdentity> {
    ssl.peer_certificate().map(|certificate| identity_of(&certificate))
}

fn identity_of(certificate: &X509Ref) -> PeerIdentity {
    let mut identity = PeerIdentity::default();
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
    identity.subject_common_name = certificate
        .subject_name()
        .entries_by_nid(openssl::nid::Nid::COMMONNAME)
        .last()
        .and_then(|entry| entry.data().to_string().ok());
    identity
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

/// What holds for both ends of every interface, PSK or certificate.
pub(crate) fn harden(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    context.set_max_proto_version(Some(SslVersion::TLS1_3))?;
    context.set_options(
        SslOptions::NO_COMPRESSION
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::NO_TICKET
            | SslOptions::CIPHER_SERVER_PREFERENCE,
    );
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    context.set_num_tickets(0)?;
    // An idle connection then holds no record buffers: 32 KiB each otherwise.
    context.set_mode(SslMode::RELEASE_BUFFERS);
    Ok(())
}

pub(crate) fn mutual_tls(context: &mut SslContextBuilder, files: &CertificateFiles) -> Result<Vec<X509>, ProfileError> {
    harden(context)?;
    context.set_ciphersuites(SUITES_TLS13)?;
    context.set_cipher_list(SUITES_TLS12)?;
    context.set_groups_list(GROUPS)?;

    let mut chain = certificates(&files.certificate)?.into_iter();
    if let Some(own) = chain.next() {
        context.set_certificate(&own)?;
    }
    for intermediate in chain {
        context.add_extra_chain_cert(intermediate)?;
    }
    let key = PKey::private_key_from_pem(&read(&files.key)?)
        .map_err(|_| ProfileError::NotPem { path: files.key.clone(), expected: "private key" })?;
    let mismatch = |_| ProfileError::KeyMismatch { certificate: files.certificate.clone(), key: files.key.clone() };
    context.set_private_key(&key).map_err(mismatch)?;
    context.check_private_key().map_err(mismatch)?;

    let authorities = certificates(&files.ca)?;
    let mut store = X509StoreBuilder::new()?;
    for authority in &authorities {
        store.add_cert(authority.clone())?;
    }
    context.set_cert_store(store.build());
    Ok(authorities)
}

/// At least one certificate.
pub(crate) fn certificates(path: &Path) -> Result<Vec<X509>, ProfileError> {
    match X509::stack_from_pem(&read(path)?) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(ProfileError::NotPem { path: path.to_owned(), expected: "certificate" }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ProfileError> {
    std::fs::read(path).map_err(|source| ProfileError::Unreadable { path: path.to_owned(), source })
}

pub(crate) const ALPN_H2: &[u8] = b"\x02h2";
const URN_UUID: &str = "urn:uuid:";
pub(crate) const GROUPS: &str = "X25519:P-256:P-384";
/// RFC 8446 clause 9.1 and the AES-256 suite that TS 33.210 clause 6.2.2 asks for besides.
pub(crate) const SUITES_TLS13: &str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
/// TS 33.210 clause 6.2.3: forward secrecy and AEAD.
pub(crate) const SUITES_TLS12: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
                            ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:\
                            ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
