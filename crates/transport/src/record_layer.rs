//! The record layer of TLS 1.3 (RFC 8446 clause 5) with the key schedule's last step (clauses 7.2, 7.3), for connections
//! whose handshake OpenSSL has done.
//!
//! An `SSL` object of OpenSSL's is worth some 15 to 20 KiB, and most of a server's connections are idle. What such a
//! connection needs is two secrets, two keys and two counters: an [`Inbound`] and an [`Outbound`]. Both are pure; neither
//! holds a buffer while it has nothing to hold.
//!
//! ```
//! use transport::record_layer::{Inbound, Outbound, Suite, Taken, TrafficSecret};
//!
//! # fn main() -> Result<(), transport::record_layer::RecordError> {
//! let secret = || TrafficSecret::from_bytes([7; 32]);
//! let mut sender = Outbound::new(Suite::Aes128GcmSha256, secret())?;
//! let mut receiver = Inbound::new(Suite::Aes128GcmSha256, secret())?;
//! let mut wire = Vec::new();
//! sender.data(b"valve open", &mut wire)?;
//! receiver.receive(&wire);
//! assert_eq!(receiver.look()?, Taken::Content);
//! assert_eq!(receiver.content(), b"valve open");
//! receiver.consume(10);
//! assert_eq!(receiver.look()?, Taken::Nothing);
//! # Ok(())
//! # }
//! ```

use std::ops::Range;
use std::sync::OnceLock;

use hkdf::Hkdf;
use openssl::cipher::Cipher;
use openssl::cipher_ctx::{CipherCtx, CipherCtxRef};
use openssl::error::ErrorStack;
use sha2::Sha256;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Octets of plaintext in one record, at most (RFC 8446 clause 5.1).
pub const RECORD_OCTETS_MAX: usize = 1 << 14;
/// What protection may add to that (clause 5.2).
const EXPANSION_OCTETS_MAX: usize = 256;
const HEADER_OCTETS: usize = 5;
const TAG_OCTETS: usize = 16;
const IV_OCTETS: usize = 12;
const SECRET_OCTETS: usize = 32;

/// Records that we protect under one key before we change it. Clause 5.5 allows 2^24.5 of full size for AES-GCM.
pub const RECORDS_PER_KEY_MAX: u64 = 1 << 24;
/// The same for AES-CCM (RFC 9147 clause 4.5.3).
const RECORDS_PER_KEY_MAX_CCM: u64 = 1 << 23;
/// Records without content, or key updates, that a peer may send in a row; one more gets `unexpected_message`.
pub const EMPTY_RECORDS_MAX: u8 = 32;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const KEY_UPDATE: u8 = 24;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// The suites of TLS 1.3 that [`psk_profile`](crate::TlsVersion) negotiates: those with SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// TLS_AES_128_GCM_SHA256 (1301).
    Aes128GcmSha256,
    /// TLS_CHACHA20_POLY1305_SHA256 (1303).
    ChaCha20Poly1305Sha256,
    /// TLS_AES_128_CCM_SHA256 (1304).
    Aes128CcmSha256,
}

impl Suite {
    /// The suite with this code point, if it is one of these.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        match code {
            0x1301 => Some(Self::Aes128GcmSha256),
            0x1303 => Some(Self::ChaCha20Poly1305Sha256),
            0x1304 => Some(Self::Aes128CcmSha256),
            _ => None,
        }
    }

    fn key_octets(self) -> usize {
        match self {
            Self::Aes128GcmSha256 | Self::Aes128CcmSha256 => 16,
            Self::ChaCha20Poly1305Sha256 => 32,
        }
    }

    fn records_per_key_max(self) -> u64 {
        match self {
            Self::Aes128GcmSha256 | Self::ChaCha20Poly1305Sha256 => RECORDS_PER_KEY_MAX,
            Self::Aes128CcmSha256 => RECORDS_PER_KEY_MAX_CCM,
        }
    }

    /// OpenSSL's implementation, looked up once in a process: each look-up costs more than a record.
    fn cipher(self) -> Result<&'static Cipher, ErrorStack> {
        static GCM: OnceLock<Cipher> = OnceLock::new();
        static CHACHA: OnceLock<Cipher> = OnceLock::new();
        static CCM: OnceLock<Cipher> = OnceLock::new();
        let (cell, name) = match self {
            Self::Aes128GcmSha256 => (&GCM, "AES-128-GCM"),
            Self::ChaCha20Poly1305Sha256 => (&CHACHA, "ChaCha20-Poly1305"),
            Self::Aes128CcmSha256 => (&CCM, "AES-128-CCM"),
        };
        if let Some(cipher) = cell.get() {
            return Ok(cipher);
        }
        let cipher = Cipher::fetch(None, name, None)?;
        Ok(cell.get_or_init(|| cipher))
    }
}

/// Why a connection's records end. What the peer is told stands with each.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A record longer than the protocol allows. `record_overflow`.
    #[error("a record is too long")]
    Overflow,
    /// A record that the key does not open: changed, repeated, out of order, or not the peer's. `bad_record_mac`.
    #[error("a record is not authentic")]
    BadMac,
    /// A record or handshake message that has no place here, or too many empty ones. `unexpected_message`.
    #[error("a record or message is out of place")]
    Unexpected,
    /// A handshake message or alert that cannot be read. `decode_error`.
    #[error("a message in a record cannot be read")]
    Malformed,
    /// A KeyUpdate that asks for neither yes nor no. `illegal_parameter`.
    #[error("a KeyUpdate has a parameter that does not exist")]
    IllegalParameter,
    /// The peer sent this fatal alert. It is told nothing.
    #[error("the peer sent alert {0}")]
    PeerAlert(u8),
    /// No sequence numbers are left under one key, because the peer never changed it. `internal_error`.
    #[error("the sequence numbers are used up")]
    Exhausted,
    /// An error before this one ended what can be read. The peer was told then.
    #[error("the records ended with an error")]
    Ended,
    /// OpenSSL cannot protect or open a record; most likely memory is short. `internal_error`.
    #[error("OpenSSL cannot protect a record")]
    OpenSsl(#[from] ErrorStack),
}

impl RecordError {
    /// The alert that is to be sent.
    #[must_use]
    pub fn alert(&self) -> Option<u8> {
        match self {
            Self::Overflow => Some(22),
            Self::BadMac => Some(20),
            Self::Unexpected => Some(10),
            Self::Malformed => Some(50),
            Self::IllegalParameter => Some(47),
            Self::PeerAlert(_) | Self::Ended => None,
            Self::Exhausted | Self::OpenSsl(_) => Some(80),
        }
    }
}

/// An application traffic secret of one direction. In one place, whoever holds it, and wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct TrafficSecret(Box<[u8; SECRET_OCTETS]>);

impl TrafficSecret {
    /// A secret of SHA-256's size.
    #[must_use]
    pub fn from_bytes(octets: [u8; SECRET_OCTETS]) -> Self {
        Self(Box::new(octets))
    }

    /// A secret in hexadecimal, as a key log has it.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut secret = Self::from_bytes([0; SECRET_OCTETS]);
        if text.len() != 2 * SECRET_OCTETS {
            return None;
        }
        for (octet, digits) in secret.0.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *octet = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(secret)
    }

    /// HKDF-Expand-Label with an empty context (RFC 8446 clause 7.1). `into` is at most 32 octets.
    fn expand(&self, label: &str, into: &mut [u8]) -> Result<(), RecordError> {
        let (Ok(octets), Ok(label_octets)) = (u16::try_from(into.len()), u8::try_from(PREFIX.len() + label.len()))
        else {
            return Err(RecordError::Exhausted);
        };
        let info: [&[u8]; 5] = [&octets.to_be_bytes(), &[label_octets], PREFIX.as_bytes(), label.as_bytes(), &[0]];
        let hkdf = Hkdf::<Sha256>::from_prk(self.0.as_slice()).map_err(|_| RecordError::Exhausted)?;
        hkdf.expand_multi_info(&info, into).map_err(|_| RecordError::Exhausted)
    }
}

const PREFIX: &str = "tls13 ";

/// Keys and counter of one direction. Boxed before there are keys, so that no move leaves a copy of them.
struct Direction {
    suite: Suite,
    secret: TrafficSecret,
    key: Zeroizing<[u8; SECRET_OCTETS]>,
    iv: Zeroizing<[u8; IV_OCTETS]>,
    sequence: u64,
}

impl Direction {
    fn new(suite: Suite, secret: TrafficSecret) -> Result<Box<Self>, RecordError> {
        let (key, iv) = (Zeroizing::default(), Zeroizing::default());
        let mut direction = Box::new(Self { suite, secret, key, iv, sequence: 0 });
        direction.derive()?;
        Ok(direction)
    }

    fn derive(&mut self) -> Result<(), RecordError> {
        let key = self.key.get_mut(..self.suite.key_octets()).unwrap_or_default();
        self.secret.expand("key", key)?;
        self.secret.expand("iv", self.iv.as_mut_slice())?;
        self.sequence = 0;
        Ok(())
    }

    /// The next generation of keys (clause 7.2).
    fn update(&mut self) -> Result<(), RecordError> {
        let mut next = TrafficSecret::from_bytes([0; SECRET_OCTETS]);
        self.secret.expand("traffic upd", next.0.as_mut_slice())?;
        self.secret = next;
        self.derive()
    }

    /// The nonce of the next record (clause 5.3); each is used once.
    fn next_nonce(&mut self) -> Result<[u8; IV_OCTETS], RecordError> {
        let mut nonce = *self.iv;
        for (octet, of_sequence) in nonce.iter_mut().skip(IV_OCTETS - 8).zip(self.sequence.to_be_bytes()) {
            *octet ^= of_sequence;
        }
        self.sequence = self.sequence.checked_add(1).ok_or(RecordError::Exhausted)?;
        Ok(nonce)
    }

    fn key(&self) -> &[u8] {
        self.key.get(..self.suite.key_octets()).unwrap_or_default()
    }

    /// Encrypts `content` where it stands.
    fn seal(&mut self, header: &[u8], content: &mut [u8]) -> Result<[u8; TAG_OCTETS], RecordError> {
        let nonce = self.next_nonce()?;
        let mut context = CipherCtx::new()?;
        let cipher = self.suite.cipher()?;
        if self.suite == Suite::Aes128CcmSha256 {
            context.encrypt_init(Some(cipher), None, None)?;
            context.set_iv_length(IV_OCTETS)?;
            context.set_tag_length(TAG_OCTETS)?;
            context.encrypt_init(None, Some(self.key()), Some(&nonce))?;
            context.set_data_len(content.len())?;
        } else {
            context.encrypt_init(Some(cipher), Some(self.key()), Some(&nonce))?;
        }
        context.cipher_update(header, None)?;
        run(&mut context, content)?;
        if self.suite != Suite::Aes128CcmSha256 {
            context.cipher_final(&mut [])?;
        }
        let mut tag = [0; TAG_OCTETS];
        context.tag(&mut tag)?;
        Ok(tag)
    }

    /// Decrypts `content` where it stands, if the tag is right; else what stands there is of no use.
    fn open(&mut self, header: &[u8], content: &mut [u8], tag: &[u8]) -> Result<(), RecordError> {
        let nonce = self.next_nonce()?;
        let mut context = CipherCtx::new()?;
        let cipher = self.suite.cipher()?;
        let opened = if self.suite == Suite::Aes128CcmSha256 {
            context.decrypt_init(Some(cipher), None, None)?;
            context.set_iv_length(IV_OCTETS)?;
            context.set_tag(tag)?;
            context.decrypt_init(None, Some(self.key()), Some(&nonce))?;
            context.set_data_len(content.len())?;
            context.cipher_update(header, None)?;
            // In this mode the tag is checked before anything is given out.
            run(&mut context, content)
        } else {
            context.decrypt_init(Some(cipher), Some(self.key()), Some(&nonce))?;
            context.cipher_update(header, None)?;
            run(&mut context, content)?;
            context.set_tag(tag)?;
            context.cipher_final(&mut []).map(|_| ())
        };
        opened.map_err(|_| RecordError::BadMac)
    }
}

fn run(context: &mut CipherCtxRef, content: &mut [u8]) -> Result<(), ErrorStack> {
    let octets = content.len();
    context.cipher_update_inplace(content, octets).map(|_| ())
}

/// What [`Inbound::look`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// [`Inbound::content`] has octets.
    Content,
    /// Nothing yet: more octets of the peer's are needed.
    Nothing,
    /// The peer has changed its keys and wants ours changed, too: [`Outbound::key_update`].
    UpdateRequested,
    /// The peer said close_notify; nothing comes after it.
    Closed,
}

/// Records of the peer. Holds at most one record and what came with its last octets.
pub struct Inbound {
    direction: Box<Direction>,
    octets: Vec<u8>,
    /// Opened, and not read yet.
    content: Range<usize>,
    /// Where the next record begins.
    next: usize,
    empty_records: u8,
    closed: bool,
    failed: bool,
}

impl Inbound {
    /// The peer's direction, from its first application record on.
    ///
    /// # Errors
    /// None in practice: HKDF refuses only sizes that do not occur here.
    pub fn new(suite: Suite, secret: TrafficSecret) -> Result<Self, RecordError> {
        let direction = Direction::new(suite, secret)?;
        Ok(Self {
            direction,
            octets: Vec::new(),
            content: 0..0,
            next: 0,
            empty_records: 0,
            closed: false,
            failed: false,
        })
    }

    /// Takes octets from the transport. Give no more before [`look`](Self::look) says [`Taken::Nothing`].
    pub fn receive(&mut self, octets: &[u8]) {
        if self.content.is_empty() {
            self.octets.drain(..self.next);
            (self.content, self.next) = (0..0, 0);
        }
        self.octets.extend_from_slice(octets);
    }

    /// Octets of buffer held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.octets.capacity()
    }

    /// What there is, after opening the next record if need be.
    ///
    /// # Errors
    /// [`RecordError`]; the connection is of no more use, and the peer to be told [`RecordError::alert`]. Nothing that comes
    /// after it is given out: from then on it is [`RecordError::Ended`].
    pub fn look(&mut self) -> Result<Taken, RecordError> {
        let taken = self.look_on();
        self.failed |= taken.is_err();
        if self.content.is_empty() && (self.failed || self.closed || self.next == self.octets.len()) {
            self.forget();
        }
        taken
    }

    fn look_on(&mut self) -> Result<Taken, RecordError> {
        loop {
            if !self.content.is_empty() {
                return Ok(Taken::Content);
            }
            if self.failed {
                return Err(RecordError::Ended);
            }
            if self.closed {
                return Ok(Taken::Closed);
            }
            let Some(record) = self.next_record()? else { return Ok(Taken::Nothing) };
            if self.open(record)? {
                return Ok(Taken::UpdateRequested);
            }
        }
    }

    /// Decrypted octets of one record that are not consumed yet.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        self.octets.get(self.content.clone()).unwrap_or_default()
    }

    /// The first `octets` of [`content`](Self::content) are read.
    pub fn consume(&mut self, octets: usize) {
        self.content.start = self.content.start.saturating_add(octets).min(self.content.end);
        if self.content.is_empty() && self.next == self.octets.len() {
            self.forget();
        }
    }

    /// An idle connection holds no buffer.
    fn forget(&mut self) {
        self.octets = Vec::new();
        (self.content, self.next) = (0..0, 0);
    }

    /// Where the next record is, if all of it is there. A bad header is noticed before its record has come.
    fn next_record(&self) -> Result<Option<Range<usize>>, RecordError> {
        let body = self.next + HEADER_OCTETS;
        let Some([kind, _, _, high, low]) = self.octets.get(self.next..body) else { return Ok(None) };
        let octets = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind != APPLICATION_DATA {
            return Err(RecordError::Unexpected);
        }
        if octets > RECORD_OCTETS_MAX + EXPANSION_OCTETS_MAX {
            return Err(RecordError::Overflow);
        }
        if octets <= TAG_OCTETS {
            return Err(RecordError::BadMac);
        }
        let end = body + octets;
        Ok((end <= self.octets.len()).then_some(self.next..end))
    }

    /// Opens a record. Whether the peer wants our keys changed.
    fn open(&mut self, record: Range<usize>) -> Result<bool, RecordError> {
        let start = record.start + HEADER_OCTETS;
        self.next = record.end;
        let whole = self.octets.get_mut(record).unwrap_or_default();
        let Some((header, body)) = whole.split_at_mut_checked(HEADER_OCTETS) else {
            return Err(RecordError::Malformed);
        };
        let Some((content, tag)) = body.split_at_mut_checked(body.len().saturating_sub(TAG_OCTETS)) else {
            return Err(RecordError::Malformed);
        };
        self.direction.open(header, content, tag)?;
        // The last octet that is not padding says what the content is (clause 5.4).
        let Some(kind_at) = content.iter().rposition(|octet| *octet != 0) else { return Err(RecordError::Unexpected) };
        if kind_at > RECORD_OCTETS_MAX {
            return Err(RecordError::Overflow);
        }
        let (content, kind) = (content.get(..kind_at).unwrap_or_default(), content.get(kind_at).copied());
        match kind {
            Some(APPLICATION_DATA) if !content.is_empty() => {
                self.empty_records = 0;
                self.content = start..start + kind_at;
                return Ok(false);
            }
            Some(APPLICATION_DATA) => {}
            Some(ALERT) => self.closed = is_close(content)?,
            Some(HANDSHAKE) => {
                let requested = read_key_update(content)?;
                self.direction.update()?;
                self.count_empty()?;
                return Ok(requested);
            }
            _ => return Err(RecordError::Unexpected),
        }
        self.count_empty().map(|()| false)
    }

    fn count_empty(&mut self) -> Result<(), RecordError> {
        self.empty_records += 1;
        if self.empty_records > EMPTY_RECORDS_MAX { Err(RecordError::Unexpected) } else { Ok(()) }
    }
}

/// Every alert but two is fatal, whatever level it claims (clause 6); of those, close_notify is the end, and the other says
/// nothing.
fn is_close(content: &[u8]) -> Result<bool, RecordError> {
    match content {
        [_, CLOSE_NOTIFY] => Ok(true),
        [_, USER_CANCELED] => Ok(false),
        [_, description] => Err(RecordError::PeerAlert(*description)),
        _ => Err(RecordError::Malformed),
    }
}

/// After the handshake a client has one message to send, alone in its record, since the keys change after it (clauses
/// 4.6.3 and 5.1). Whether it asks for ours.
fn read_key_update(content: &[u8]) -> Result<bool, RecordError> {
    match content {
        [KEY_UPDATE, 0, 0, 1, 0] => Ok(false),
        [KEY_UPDATE, 0, 0, 1, 1] => Ok(true),
        [KEY_UPDATE, 0, 0, 1, _] => Err(RecordError::IllegalParameter),
        [KEY_UPDATE, ..] => Err(RecordError::Malformed),
        _ => Err(RecordError::Unexpected),
    }
}

/// Our records.
pub struct Outbound {
    direction: Box<Direction>,
    records_per_key_max: u64,
}

impl Outbound {
    /// Our direction, from its first application record on.
    ///
    /// # Errors
    /// None in practice: HKDF refuses only sizes that do not occur here.
    pub fn new(suite: Suite, secret: TrafficSecret) -> Result<Self, RecordError> {
        Ok(Self { direction: Direction::new(suite, secret)?, records_per_key_max: suite.records_per_key_max() })
    }

    /// Changes the key after this many records, if the suite does not ask for it before.
    #[must_use]
    pub fn with_records_per_key(mut self, records: u64) -> Self {
        self.records_per_key_max = records.clamp(1, self.direction.suite.records_per_key_max());
        self
    }

    /// Appends one record with the first octets of `data` to `wire`, preceded by a KeyUpdate when it is time. How many octets
    /// went in: at most [`RECORD_OCTETS_MAX`].
    ///
    /// # Errors
    /// [`RecordError::OpenSsl`].
    pub fn data(&mut self, data: &[u8], wire: &mut Vec<u8>) -> Result<usize, RecordError> {
        if self.direction.sequence >= self.records_per_key_max {
            self.key_update(wire)?;
        }
        let octets = data.len().min(RECORD_OCTETS_MAX);
        self.seal(APPLICATION_DATA, data.get(..octets).unwrap_or_default(), wire)?;
        Ok(octets)
    }

    /// Appends a KeyUpdate that asks for none in return, and changes the key.
    ///
    /// # Errors
    /// [`RecordError::OpenSsl`].
    pub fn key_update(&mut self, wire: &mut Vec<u8>) -> Result<(), RecordError> {
        self.seal(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0], wire)?;
        self.direction.update()
    }

    /// Appends close_notify. Nothing may follow it.
    ///
    /// # Errors
    /// [`RecordError::OpenSsl`].
    pub fn close(&mut self, wire: &mut Vec<u8>) -> Result<(), RecordError> {
        const WARNING: u8 = 1;
        self.seal(ALERT, &[WARNING, CLOSE_NOTIFY], wire)
    }

    /// Appends a fatal alert. Nothing may follow it.
    ///
    /// # Errors
    /// [`RecordError::OpenSsl`].
    pub fn alert(&mut self, description: u8, wire: &mut Vec<u8>) -> Result<(), RecordError> {
        const FATAL: u8 = 2;
        self.seal(ALERT, &[FATAL, description], wire)
    }

    /// Appends one record of any kind, for tests of what a peer may send.
    #[doc(hidden)]
    pub fn seal(&mut self, kind: u8, content: &[u8], wire: &mut Vec<u8>) -> Result<(), RecordError> {
        let start = wire.len();
        let [high, low] =
            u16::try_from(content.len() + 1 + TAG_OCTETS).map_err(|_| RecordError::Overflow)?.to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        wire.reserve(HEADER_OCTETS + content.len() + 1 + TAG_OCTETS);
        wire.extend_from_slice(&header);
        wire.extend_from_slice(content);
        wire.push(kind);
        let sealed = self.direction.seal(&header, wire.get_mut(start + HEADER_OCTETS..).unwrap_or_default());
        match sealed {
            Ok(tag) => wire.extend_from_slice(&tag),
            // What is not encrypted must not leave.
            Err(_) => wire.truncate(start),
        }
        sealed.map(|_| ())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "record_layer_tests.rs"]
mod tests;
