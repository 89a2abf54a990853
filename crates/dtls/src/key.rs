//! The pre-shared key, and how it is asked for.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::limits::{PSK_OCTETS_MAX, PSK_OCTETS_MIN};
use crate::suite::{CipherSuite, ProtocolVersion};

/// A pre-shared key. It is wiped when dropped, and prints nothing.
#[derive(Clone)]
pub struct PresharedKey(Zeroizing<Vec<u8>>);

impl PresharedKey {
    /// Takes 16 to 64 octets; K_AF has 32.
    ///
    /// # Errors
    /// [`Error::KeyLength`].
    pub fn new(octets: &[u8]) -> Result<Self, Error> {
        if !(PSK_OCTETS_MIN..=PSK_OCTETS_MAX).contains(&octets.len()) {
            return Err(Error::KeyLength(octets.len()));
        }
        Ok(Self(Zeroizing::new(octets.to_vec())))
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

/// The key that a handshake waits for. Answer with [`crate::Connection::provide_key`] or
/// [`crate::Connection::refuse_key`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRequest {
    /// The version negotiated; on a client that offers DTLS 1.3 first that one, and again 1.2 if the server wants it.
    pub version: ProtocolVersion,
    /// The cipher suite negotiated; on a client of DTLS 1.3, which needs its key before, the first that it offers.
    pub cipher_suite: CipherSuite,
    /// The PSK identity: on the server what the client sent, at most [`crate::limits::PSK_IDENTITY_OCTETS_MAX`] octets,
    /// unproven; on the client its own.
    pub identity: Vec<u8>,
    /// The host name of the client's server_name, in lower case, if it sent one.
    pub server_name: Option<String>,
    /// On the client, the server's identity hint, if it sent one. Unproven.
    pub identity_hint: Option<Vec<u8>>,
}

impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An identity names a subscriber.
        f.debug_struct("KeyRequest")
            .field("version", &self.version)
            .field("cipher_suite", &self.cipher_suite)
            .field("identity_octets", &self.identity.len())
            .finish_non_exhaustive()
    }
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyRefusal {
    /// The identity is not known, or its key has expired. The peer is told as
    /// [`crate::ServerConfig::unknown_identity`] says.
    Unknown,
    /// It could not be found out: told as internal_error, so that the peer tries again later.
    Unavailable,
}

/// Takes lines of the NSS key log format (`CLIENT_RANDOM ...`, `CLIENT_TRAFFIC_SECRET_0 ...`). For tests and analysis only: who has them reads the
/// session.
#[derive(Clone)]
pub struct KeyLog(Arc<dyn Fn(&str) + Send + Sync>);

impl KeyLog {
    /// Calls `line` for each secret.
    pub fn new(line: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(line))
    }

    pub(crate) fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        use std::fmt::Write as _;
        let mut line = Zeroizing::new(format!("{label} "));
        for octet in client_random {
            let _ = write!(line, "{octet:02x}");
        }
        line.push(' ');
        for octet in secret {
            let _ = write!(line, "{octet:02x}");
        }
        (self.0)(&line);
    }
}

impl fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLog(..)")
    }
}
