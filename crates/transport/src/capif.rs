//! What the TLS of CAPIF-1e needs beyond [`crate::profile`]: clients without a certificate, and the secrets of a session of
//! TLS 1.2 (TS 33.122 clauses 6.1, 6.5.2.1 and A.1).

use std::fmt;
use std::path::Path;

use openssl::ssl::{SslContext, SslContextBuilder, SslMethod, SslRef, SslVerifyMode, SslVersion};
use openssl::x509::X509ExtendedKeyUsage;
use openssl::x509::store::X509StoreBuilder;
use zeroize::Zeroizing;

use crate::profile::{
    ALPN_H2, CertificateFiles, GROUPS, ProfileError, Role, SUITES_TLS12, SUITES_TLS13, builder, certificates, context,
    harden, is_meant_for,
};

/// As [`crate::profile::mutual_tls_server`], but a client may come without a certificate:
/// [`crate::profile::peer_identity`] is then `None`, and what such a client may do is the caller's business. One that shows a
/// certificate of another authority is refused here as there.
///
/// A full handshake of TLS 1.2 gives the session an identifier, which [`tls12_session`] tells. The session itself is kept
/// nowhere, so that nothing can be resumed here either.
///
/// # Errors
/// [`ProfileError`], naming the file at fault.
pub fn optional_tls_server(files: &CertificateFiles) -> Result<SslContext, ProfileError> {
    context(files, Role::Server { strict_server_name: false, certificate_required: false })
}

/// A client context that shows no certificate, for the one request before there is one: onboarding. It verifies the server's
/// against the authorities in the PEM file `ca`, and offers HTTP/2.
///
/// # Errors
/// [`ProfileError`], naming the file at fault.
pub fn server_authenticated_client(ca: &Path) -> Result<SslContext, ProfileError> {
    let mut context = SslContextBuilder::new(SslMethod::tls_client())?;
    harden(&mut context)?;
    context.set_ciphersuites(SUITES_TLS13)?;
    context.set_cipher_list(SUITES_TLS12)?;
    context.set_groups_list(GROUPS)?;
    let mut store = X509StoreBuilder::new()?;
    for authority in certificates(ca)? {
        store.add_cert(authority)?;
    }
    context.set_cert_store(store.build());
    context.set_verify_callback(SslVerifyMode::PEER, |ok, chain| {
        ok && is_meant_for(chain, X509ExtendedKeyUsage::SSL_SERVER)
    });
    context.set_alpn_protos(ALPN_H2)?;
    Ok(context.build())
}

/// As [`crate::profile::mutual_tls_client`], but TLS 1.2 only: for an API invoker that wants AEF_PSK.
///
/// # Errors
/// [`ProfileError`], naming the file at fault.
pub fn mutual_tls12_client(files: &CertificateFiles) -> Result<SslContext, ProfileError> {
    let mut context = builder(files, Role::Client)?;
    context.set_max_proto_version(Some(SslVersion::TLS1_2))?;
    Ok(context.build())
}

/// What a full handshake of TLS 1.2 leaves with both ends and with nobody else. Not printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls12Session {
    /// The master secret (RFC 5246 clause 8.1), extended (RFC 7627) where both ends can.
    pub master_secret: Zeroizing<[u8; MASTER_SECRET_OCTETS]>,
    /// The identifier that the server gave, 1 to 32 octets (RFC 5246 clause 7.4.1.3).
    pub session_id: Vec<u8>,
}

impl fmt::Debug for Tls12Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls12Session(redacted)")
    }
}

/// The session of a connection whose handshake is over; `None` in TLS 1.3, which has neither a master secret in this sense nor
/// an identifier, and where the server gave no identifier.
pub fn tls12_session(ssl: &SslRef) -> Option<Tls12Session> {
    let session = ssl.session().filter(|_| ssl.version2() == Some(SslVersion::TLS1_2))?;
    let session_id = session.id().to_vec();
    let mut master_secret = Zeroizing::new([0; MASTER_SECRET_OCTETS]);
    let octets = session.master_key(&mut master_secret[..]);
    (octets == MASTER_SECRET_OCTETS && !session_id.is_empty()).then_some(Tls12Session { master_secret, session_id })
}

/// Octets of a master secret of TLS 1.2 (RFC 5246 clause 8.1).
pub const MASTER_SECRET_OCTETS: usize = 48;
