//! The one TLS profile of every interface (TS 33.210 clause 6.2, narrowed by TS 33.501 clause 13.1 for HTTP/2).
//!
//! TLS 1.2 and 1.3; forward secrecy and AEAD only; no compression, no renegotiation, no resumption: every
//! connection proves its peer again, so a withdrawn certificate cannot live on in a session ticket.
//!
//! A peer's certificate must come from a configured authority, be meant for the peer's role (extended key usage, TS
//! 33.310 clause 6.1.3c), and, where a CRL is configured, stand on none. [`ReloadingContext`] notices when the files
//! change.

use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    AlpnError, NameType, SniError, Ssl, SslAlert, SslContext, SslContextBuilder, SslContextRef, SslMethod, SslMode,
    SslOptions, SslSessionCacheMode, SslVerifyMode, SslVersion, select_next_proto,
};
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::{X509CheckFlags, X509VerifyFlags};
use openssl::x509::{
    X509, X509Crl, X509ExtendedKeyUsage, X509PurposeId, X509Ref, X509StoreContextRef, X509VerifyResult,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::authorities::Authorities;
use crate::ffi;
use crate::peer_identity::dns_names;
pub use crate::peer_identity::{PeerIdentity, peer_identity};
pub use crate::reload::{PeerCertificates, ReloadOutcome, ReloadingContext, peer_certificates};
pub use crate::trust::{ReloadingTrust, Untrusted};

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
    /// PEM: the current CRL of every authority in a peer's chain, roots included; or one CRL in DER. With it, a peer
    /// whose certificate is on a CRL is refused, and so is everybody whose authority's CRL is missing here or past its
    /// next update: who cannot be checked is not let in. Without it, nothing is checked against CRLs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl: Option<PathBuf>,
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
        /// "certificate", "private key" or "CRL".
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

/// Which end of the connection a context is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Server {
        /// Whether a server name that the certificate does not carry is refused.
        strict_server_name: bool,
        /// Whether a client without a certificate is refused; one that shows a wrong one always is.
        certificate_required: bool,
    },
    /// A server whose clients prove themselves by other means, inside: no certificate is asked for, HTTP/1.1 is spoken, too.
    DeviceServer {
        /// Whether a server name that the certificate does not carry is refused.
        strict_server_name: bool,
    },
    Client,
}

/// A server context that demands and verifies a client certificate, and speaks HTTP/2 (ALPN `h2`) only.
///
/// The certificate must be meant for clients (extended key usage clientAuth). A client that offers ALPN without `h2`
/// gets `no_application_protocol`; one that offers no ALPN at all finishes the handshake without a selected protocol,
/// which the HTTP/2 layer above treats as it likes. Any server name (SNI) is answered, or none.
///
/// # Errors
/// [`ProfileError`], naming the file at fault.
pub fn mutual_tls_server(files: &CertificateFiles) -> Result<SslContext, ProfileError> {
    context(files, Role::Server { strict_server_name: false, certificate_required: true })
}

/// A client context that shows its certificate, verifies the server's, and offers HTTP/2 (ALPN `h2`).
///
/// The server's certificate must be meant for servers (extended key usage serverAuth). The name to verify belongs to a
/// connection, not to the context: make the session with [`client_session`].
///
/// # Errors
/// [`ProfileError`], naming the file at fault.
pub fn mutual_tls_client(files: &CertificateFiles) -> Result<SslContext, ProfileError> {
    context(files, Role::Client)
}

/// A client context without a certificate of its own, for a device that proves itself inside (TS 33.535 Annex B.1.2). It
/// verifies the server's, which must come from an authority in `ca`, and offers HTTP/2.
///
/// # Errors
/// [`ProfileError`], naming the file at fault.
pub fn device_client(ca: &Path) -> Result<SslContext, ProfileError> {
    let mut context = SslContextBuilder::new(SslMethod::tls_client())?;
    harden(&mut context)?;
    context.set_ciphersuites(SUITES_TLS13)?;
    context.set_cipher_list(SUITES_TLS12)?;
    context.set_groups_list(GROUPS)?;
    let mut store = X509StoreBuilder::new()?;
    for authority in certificates(ca)? {
        store.add_cert(authority)?;
    }
    store.set_purpose(X509PurposeId::SSL_SERVER)?;
    context.set_cert_store(store.build());
    context.set_verify_callback(SslVerifyMode::PEER, |ok, chain| {
        ok && is_meant_for(chain, X509ExtendedKeyUsage::SSL_SERVER)
    });
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

pub(crate) fn context(files: &CertificateFiles, role: Role) -> Result<SslContext, ProfileError> {
    Ok(builder(files, role)?.build())
}

/// A context of the profile that may still be changed.
pub(crate) fn builder(files: &CertificateFiles, role: Role) -> Result<SslContextBuilder, ProfileError> {
    let mut context = SslContextBuilder::new(match role {
        Role::Server { .. } | Role::DeviceServer { .. } => SslMethod::tls_server(),
        Role::Client => SslMethod::tls_client(),
    })?;
    harden(&mut context)?;
    context.set_ciphersuites(SUITES_TLS13)?;
    context.set_cipher_list(SUITES_TLS12)?;
    context.set_groups_list(GROUPS)?;
    let own = show_certificate(&mut context, files)?;
    if let Role::DeviceServer { strict_server_name } = role {
        context.set_alpn_select_callback(|_, offered| {
            select_next_proto(ALPN_H2_HTTP11, offered).ok_or(AlpnError::ALERT_FATAL)
        });
        if strict_server_name {
            refuse_other_names(&mut context, own);
        }
        return Ok(context);
    }
    let authorities = certificates(&files.ca)?;
    context.set_cert_store(trust(files, &authorities, role)?);
    match role {
        Role::Server { strict_server_name, certificate_required } => {
            let mut verify = SslVerifyMode::PEER;
            verify.set(SslVerifyMode::FAIL_IF_NO_PEER_CERT, certificate_required);
            context
                .set_verify_callback(verify, |ok, chain| ok && is_meant_for(chain, X509ExtendedKeyUsage::SSL_CLIENT));
            let mut names = Stack::new()?;
            for authority in &authorities {
                names.push(authority.subject_name().to_owned()?)?;
            }
            context.set_client_ca_list(names);
            context.set_alpn_select_callback(|_, offered| {
                select_next_proto(ALPN_H2, offered).ok_or(AlpnError::ALERT_FATAL)
            });
            if strict_server_name {
                refuse_other_names(&mut context, own);
            }
            if !certificate_required {
                // So that a session of TLS 1.2 has an identifier ([`crate::capif`]). It is kept nowhere: nothing can be
                // resumed here either. OpenSSL wants a context where sessions have identifiers.
                context.set_session_cache_mode(SslSessionCacheMode::SERVER | SslSessionCacheMode::NO_INTERNAL);
                context.set_session_id_context(b"msgin5g")?;
            }
        }
        Role::Client => {
            let verify = SslVerifyMode::PEER;
            context
                .set_verify_callback(verify, |ok, chain| ok && is_meant_for(chain, X509ExtendedKeyUsage::SSL_SERVER));
            context.set_alpn_protos(ALPN_H2)?;
        }
        Role::DeviceServer { .. } => {}
    }
    Ok(context)
}

/// The own certificate, chain and key; gives the certificate's DNS names, in lower case.
fn show_certificate(context: &mut SslContextBuilder, files: &CertificateFiles) -> Result<Vec<String>, ProfileError> {
    let mut names = Vec::new();
    let mut chain = certificates(&files.certificate)?.into_iter();
    if let Some(own) = chain.next() {
        names = dns_names(&own);
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
    Ok(names)
}

/// Who vouches for peers, and on which conditions. These hold when a peer is verified again later, too.
pub(crate) fn trust(files: &CertificateFiles, authorities: &[X509], role: Role) -> Result<X509Store, ProfileError> {
    let mut store = X509StoreBuilder::new()?;
    for authority in authorities {
        store.add_cert(authority.clone())?;
    }
    store.set_purpose(match role {
        Role::Server { .. } | Role::DeviceServer { .. } => X509PurposeId::SSL_CLIENT,
        Role::Client => X509PurposeId::SSL_SERVER,
    })?;
    if let Some(path) = &files.crl {
        for crl in revocation_lists(path)? {
            ffi::add_crl(&mut store, &crl)?;
        }
        store.set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL)?;
    }
    Ok(store.build())
}

/// OpenSSL takes a certificate without extended key usage as good for anything; TS 33.310 clause 6.1.3c wants it there.
pub(crate) fn is_meant_for(chain: &mut X509StoreContextRef, usage: X509ExtendedKeyUsage) -> bool {
    if chain.error_depth() > 0 {
        return true;
    }
    let meant = chain.current_cert().and_then(X509Ref::extended_key_usage).is_some_and(|usages| usages.contains(usage));
    if !meant {
        chain.set_error(X509VerifyResult::APPLICATION_VERIFICATION);
    }
    meant
}

/// RFC 6066 clause 3: `unrecognized_name`, fatal, for a name that is not ours. No name at all is answered.
fn refuse_other_names(context: &mut SslContextBuilder, own: Vec<String>) {
    context.set_servername_callback(move |session, alert| {
        let Some(asked) = session.servername_raw(NameType::HOST_NAME) else { return Ok(()) };
        let asked = String::from_utf8_lossy(asked).to_ascii_lowercase();
        if own.iter().any(|name| covers(name, &asked)) {
            return Ok(());
        }
        *alert = SslAlert::UNRECOGNIZED_NAME;
        Err(SniError::ALERT_FATAL)
    });
}

/// Whether a certificate's DNS name, possibly with a wildcard as its first label (RFC 9525 clause 6.3), is `asked`.
fn covers(name: &str, asked: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => asked.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => name == asked,
    }
}

/// At least one CRL: one in DER, or any number in PEM.
fn revocation_lists(path: &Path) -> Result<Vec<X509Crl>, ProfileError> {
    let content = read(path)?;
    if let Ok(list) = X509Crl::from_der(&content) {
        return Ok(vec![list]);
    }
    let not_crl = || ProfileError::NotPem { path: path.to_owned(), expected: "CRL" };
    let text = String::from_utf8(content).map_err(|_| not_crl())?;
    let lists = text
        .match_indices(CRL_BEGIN)
        .map(|(at, _)| X509Crl::from_pem(text.get(at..).unwrap_or_default().as_bytes()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| not_crl())?;
    if lists.is_empty() { Err(not_crl()) } else { Ok(lists) }
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

const CRL_BEGIN: &str = "-----BEGIN X509 CRL-----";
pub(crate) const ALPN_H2: &[u8] = b"\x02h2";

/// HTTP/1.1, in the same form (RFC 7301).
pub(crate) const ALPN_HTTP11: &[u8] = b"\x08http/1.1";
const ALPN_H2_HTTP11: &[u8] = b"\x02h2\x08http/1.1";
pub(crate) const GROUPS: &str = "X25519:P-256:P-384";
/// RFC 8446 clause 9.1 and the AES-256 suite that TS 33.210 clause 6.2.2 asks for besides.
pub(crate) const SUITES_TLS13: &str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
/// TS 33.210 clause 6.2.3: forward secrecy and AEAD.
pub(crate) const SUITES_TLS12: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
                            ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:\
                            ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
