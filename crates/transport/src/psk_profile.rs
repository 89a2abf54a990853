//! What client and server agree on before they meet: TS 33.535 B.1.3 over the profile of TS 33.210 clause 6.2.

use std::ffi::CStr;
use std::fmt;

use akma::UaProtocolId;
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslMethod, SslRef, SslVersion};

use crate::profile::harden;

/// The version of TLS, or of DTLS, of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
    /// DTLS 1.2 (RFC 6347).
    Dtls12,
    /// DTLS 1.3 (RFC 9147).
    Dtls13,
    /// No TLS: OSCORE protects each message for itself (RFC 8613).
    Oscore,
}

impl TlsVersion {
    /// The Ua* protocol that K_AF is derived for, with this cipher suite (TS 33.220 clause H.3).
    pub(crate) fn protocol(self, suite: u16) -> UaProtocolId {
        match self {
            Self::Tls13 | Self::Dtls13 => UaProtocolId::TLS_1_3,
            Self::Tls12 | Self::Dtls12 => UaProtocolId::tls_1_2(suite),
            Self::Oscore => UaProtocolId::from_bytes(coap::oscore::UA_PROTOCOL_OSCORE),
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
            Self::Dtls12 => "DTLS 1.2",
            Self::Dtls13 => "DTLS 1.3",
            Self::Oscore => "OSCORE",
        })
    }
}

/// A context with everything both ends share, and no key yet.
///
/// psk_ke stays off because SSL_OP_ALLOW_NO_DHE_KEX is not set, 0-RTT because max_early_data stays 0.
pub(crate) fn context(method: SslMethod, allow_plain_psk_tls12: bool) -> Result<SslContextBuilder, ErrorStack> {
    let mut context = SslContextBuilder::new(method)?;
    harden(&mut context)?;
    context.set_ciphersuites(SUITES_TLS13)?;
    context.set_cipher_list(if allow_plain_psk_tls12 { SUITES_TLS12_WITH_PLAIN } else { SUITES_TLS12 })?;
    context.set_groups_list(GROUPS)?;
    Ok(context)
}

/// The suites of TLS 1.2 that may be negotiated, in order of preference.
pub(crate) fn tls12_suites(allow_plain_psk_tls12: bool) -> &'static [u16] {
    if allow_plain_psk_tls12 { &CODES_TLS12_WITH_PLAIN } else { &CODES_TLS12 }
}

/// What the handshake came to, if it is what this profile allows: by PSK, and in a suite of ours.
pub(crate) fn outcome(ssl: &SslRef, allow_plain_psk_tls12: bool) -> Option<(TlsVersion, u16, &'static str)> {
    let cipher = ssl.current_cipher()?;
    let suite = u16::from_be_bytes(cipher.protocol_id());
    let version = match ssl.version2()? {
        // An external PSK counts as resumption in OpenSSL; nothing else can be resumed here.
        SslVersion::TLS1_3 if ssl.session_reused() && CODES_TLS13.contains(&suite) => TlsVersion::Tls13,
        SslVersion::TLS1_2 if tls12_suites(allow_plain_psk_tls12).contains(&suite) => TlsVersion::Tls12,
        _ => return None,
    };
    Some((version, suite, cipher.standard_name()?))
}

/// The identity hint of TLS 1.2 (TS 24.109 clause K.3.2), which is also the prefix of every identity.
pub(crate) const IDENTITY_HINT: &CStr = c"3GPP-AKMA";

/// An external PSK without stated hash goes with SHA-256 (RFC 8446 clause 4.2.11), so no SHA-384 suite.
pub(crate) const CODES_TLS13: [u16; 3] = [0x1301, 0x1303, 0x1304];
const SUITES_TLS13: &str = "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256";

const CODES_TLS12: [u16; 1] = [0xCCAC];
const SUITES_TLS12: &str = "ECDHE-PSK-CHACHA20-POLY1305";
/// Plain PSK has no forward secrecy, but is all that some small devices have.
const CODES_TLS12_WITH_PLAIN: [u16; 2] = [0xCCAC, 0x00A8];
const SUITES_TLS12_WITH_PLAIN: &str = "ECDHE-PSK-CHACHA20-POLY1305:PSK-AES128-GCM-SHA256";

const GROUPS: &str = "X25519:P-256";
