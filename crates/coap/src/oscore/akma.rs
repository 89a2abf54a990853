//! OSCORE keyed by AKMA: the `/akma` exchange of TS 33.535 Annex D.
//!
//! ```text
//! UE (MSGin5G Client)                                   AF (MSGin5G Server)
//!   AkmaRequest::new
//!        ── POST /akma: protocol, A-KID, N1, AF-SID ──▶  AkmaRequest::from_message
//!                                                        K_AF of (A-KID, FQDN + protocol) from the AAnF
//!                        ◀── 2.01: N2, UE-SID ──         AkmaRequest::accept
//!   AkmaRequest::complete
//!        ── first request under OSCORE ──▶               only now does the AF know that the UE has K_AF
//! ```
//!
//! The exchange itself is in clear and proves nothing: whoever has no K_AF gets a context that fits nobody. Both sides
//! put a nonce into the salt, so a context is new as long as one of them was honest about it.
//!
//! # What is decided here
//!
//! Of Annex D we know its outline, not its coding; TS 33.220 Annex P, to which it points, we have not seen. Known: POST
//! to `/akma` with security protocol identifier, A-KID, N1, AF-SID and optionally OSC-INP; 2.01 with N2 and UE-SID;
//! master secret = HKDF(K_AF, "AKMA-OSCORE"); master salt = request payload | response payload; the UE's Sender ID is
//! UE-SID; CBOR. Everything below is our reading, each in one place, and to be changed there:
//!
//! | Open | Decision | Where |
//! |---|---|---|
//! | layout of the bodies | a CBOR array in the order of the text, deterministic form, nothing after it | [`AkmaRequest::new`], [`AkmaRequest::accept`] |
//! | Content-Format | 60, `application/cbor`; a request without one is taken | [`CONTENT_FORMAT_CBOR`] |
//! | security protocol identifier | the five octets of a Ua* protocol identifier, as byte string; `FF` is the organisation octet for local use, since the number of 3GPP is not known to us | [`UA_PROTOCOL_OSCORE`] |
//! | A-KID | text string, 1 to 253 visible ASCII characters, opaque | [`AkmaRequest::a_kid`] |
//! | N1, N2 | byte strings of 8 to 32 octets; we send 16 | [`NONCE_OCTETS`], [`NONCE_OCTETS_MIN`], [`NONCE_OCTETS_MAX`] |
//! | AF-SID | the AF's Sender ID, chosen by the UE, for which it is the Recipient ID: byte string of 0 to 7 octets | [`AkmaRequest::af_sid`] |
//! | UE-SID | byte string of 0 to 7 octets; never that of AF-SID, which an AF must not choose and a UE refuses | [`AkmaRequest::accept`] |
//! | OSC-INP | a map with the labels of RFC 9203: 3 (HKDF) = -10, 4 (AEAD) = 10; we send none; another algorithm or label is refused, so that nobody thinks something was agreed that was not | [`LABEL_HKDF`], [`LABEL_AEAD`] |
//! | HKDF of the master secret | SHA-256, no salt, info = the ASCII octets `AKMA-OSCORE`, 32 octets | [`MASTER_SECRET_INFO`] |
//! | payloads in the salt | the octets as they were sent | [`ContextParameters::master_salt`] |
//! | ID Context | none | [`ContextParameters::id_context`] |
//! | refusals | 4.00 what cannot be read or is not supported; 4.01 an A-KID that the AAnF does not know, 5.03 an AAnF that does not answer, by the server | [`OscoreError::answer`] |

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::cbor::{Reader, Writer};
use super::context::ContextParameters;
use super::error::OscoreError;
use super::keys::{ALGORITHM, KeyId, MasterSecret};
use super::limits::{A_KID_OCTETS_MAX, AKMA_BODY_OCTETS_MAX};
use super::message::{Message, number};
use crate::code::Code;

/// The resource at the AF.
pub const AKMA_PATH: &str = "akma";

/// The security protocol identifier in the request, and the last five octets of the AF_ID that K_AF is derived for.
pub const UA_PROTOCOL_OSCORE: [u8; 5] = [0xff, 0x00, 0x00, 0x00, 0x08];

/// `application/cbor`.
pub const CONTENT_FORMAT_CBOR: u16 = 60;

/// What makes the master secret of K_AF.
pub const MASTER_SECRET_INFO: &[u8] = b"AKMA-OSCORE";

/// Octets of the nonces that we send. K_AF is the same for all contexts of one A-KID, so the two nonces are what keeps
/// them apart.
pub const NONCE_OCTETS: usize = 16;
/// Octets of the shortest nonce that is taken (as RFC 9203 4.1 recommends).
pub const NONCE_OCTETS_MIN: usize = 8;
/// Octets of the longest nonce that is taken.
pub const NONCE_OCTETS_MAX: usize = 32;

/// Label of the HKDF algorithm in OSC-INP.
pub const LABEL_HKDF: i64 = 3;
/// Label of the AEAD algorithm in OSC-INP.
pub const LABEL_AEAD: i64 = 4;
/// HKDF with SHA-256 (RFC 9053 6.1.2, "direct+HKDF-SHA-256").
pub const HKDF_SHA_256: i64 = -10;
/// AES-CCM-16-64-128.
pub const AES_CCM_16_64_128: i64 = ALGORITHM;

const MASTER_SECRET_OCTETS: usize = 32;

/// The first half of an `/akma` exchange, on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AkmaRequest {
    a_kid: String,
    af_sid: KeyId,
    payload: Vec<u8>,
}

impl AkmaRequest {
    /// At the UE: a request with the A-KID of its AKMA keys, a fresh random nonce, and an AF-SID that is the Recipient ID
    /// of no other context of this UE with a server that it might confuse with this one.
    ///
    /// # Errors
    /// [`OscoreError::InvalidParameter`] for an A-KID that is no such.
    pub fn new(a_kid: &str, n1: &[u8; NONCE_OCTETS], af_sid: KeyId) -> Result<Self, OscoreError> {
        if !is_a_kid(a_kid) {
            return Err(OscoreError::InvalidParameter("A-KID"));
        }
        let mut payload = Vec::new();
        Writer(&mut payload).array(4).bytes(&UA_PROTOCOL_OSCORE).text(a_kid).bytes(n1).bytes(af_sid.as_slice());
        Ok(Self { a_kid: a_kid.to_owned(), af_sid, payload })
    }

    /// At the AF: reads the body of a request.
    ///
    /// # Errors
    /// [`OscoreError::AkmaNotDecoded`], [`OscoreError::AkmaNotSupported`].
    pub fn parse(payload: &[u8]) -> Result<Self, OscoreError> {
        if payload.len() > AKMA_BODY_OCTETS_MAX {
            return Err(OscoreError::AkmaNotDecoded("body too long"));
        }
        let mut reader = Reader(payload);
        let items = reader.array().filter(|items| matches!(items, 4 | 5));
        let items = items.ok_or(OscoreError::AkmaNotDecoded("no array of four or five"))?;
        let protocol = reader.bytes().ok_or(OscoreError::AkmaNotDecoded("security protocol identifier"))?;
        if protocol != UA_PROTOCOL_OSCORE {
            return Err(OscoreError::AkmaNotSupported("security protocol"));
        }
        let a_kid = reader.text().filter(|a_kid| is_a_kid(a_kid)).ok_or(OscoreError::AkmaNotDecoded("A-KID"))?;
        read_nonce(&mut reader).ok_or(OscoreError::AkmaNotDecoded("N1"))?;
        let af_sid = read_id(&mut reader).ok_or(OscoreError::AkmaNotDecoded("AF-SID"))?;
        if items == 5 {
            read_input(&mut reader)?;
        }
        if !reader.is_at_end() {
            return Err(OscoreError::AkmaNotDecoded("more than the array"));
        }
        Ok(Self { a_kid: a_kid.to_owned(), af_sid, payload: payload.to_vec() })
    }

    /// At the AF: reads a request, if it is one to this resource.
    ///
    /// # Errors
    /// [`OscoreError::AkmaNotDecoded`] for another method, path or Content-Format, and as [`AkmaRequest::parse`].
    pub fn from_message(message: &Message) -> Result<Self, OscoreError> {
        let mut path = message.options().filter(|(found, _)| *found == number::URI_PATH).map(|(_, value)| value);
        if message.code() != Code::POST || path.next() != Some(AKMA_PATH.as_bytes()) || path.next().is_some() {
            return Err(OscoreError::AkmaNotDecoded("no POST to /akma"));
        }
        let understood = [number::URI_HOST, number::URI_PORT, number::URI_PATH];
        if message.options().any(|(found, _)| found & 1 == 1 && !understood.contains(&found)) {
            return Err(OscoreError::AkmaNotDecoded("critical option not supported"));
        }
        check_content_format(message)?;
        Self::parse(message.payload())
    }

    /// At the UE: the request to be sent, without protection.
    ///
    /// # Errors
    /// None that can come up; see [`Message::new`].
    pub fn to_message(&self) -> Result<Message, OscoreError> {
        let options: [(u16, &[u8]); 2] =
            [(number::URI_PATH, AKMA_PATH.as_bytes()), (number::CONTENT_FORMAT, &[CONTENT_FORMAT_CBOR as u8])];
        Message::new(Code::POST, &options, &self.payload)
    }

    /// The name of the UE's AKMA keys, by which the AF asks the AAnF for K_AF.
    #[must_use]
    pub fn a_kid(&self) -> &str {
        &self.a_kid
    }

    /// The Sender ID that the UE chose for the AF.
    #[must_use]
    pub const fn af_sid(&self) -> &KeyId {
        &self.af_sid
    }

    /// The body.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// At the AF: the answer, and what the context is made of. `n2` is fresh and random; `ue_sid` is the Recipient ID of
    /// no other context of this AF, and not AF-SID.
    ///
    /// # Errors
    /// [`OscoreError::InvalidParameter`] if `ue_sid` is AF-SID.
    pub fn accept(
        &self,
        k_af: &[u8; 32],
        n2: &[u8; NONCE_OCTETS],
        ue_sid: KeyId,
    ) -> Result<(Message, ContextParameters), OscoreError> {
        if ue_sid == self.af_sid {
            return Err(OscoreError::InvalidParameter("UE-SID is AF-SID"));
        }
        let mut answer = Vec::new();
        Writer(&mut answer).array(2).bytes(n2).bytes(ue_sid.as_slice());
        let parameters = self.parameters(k_af, &answer, self.af_sid, ue_sid)?;
        let options: [(u16, &[u8]); 1] = [(number::CONTENT_FORMAT, &[CONTENT_FORMAT_CBOR as u8])];
        Ok((Message::new(Code::CREATED, &options, &answer)?, parameters))
    }

    /// At the UE: what the context is made of, from the answer.
    ///
    /// # Errors
    /// [`OscoreError::AkmaNotDecoded`] for what is no such answer. A refusal has another code than 2.01, which nothing
    /// vouches for.
    pub fn complete(&self, k_af: &[u8; 32], answer: &Message) -> Result<ContextParameters, OscoreError> {
        if answer.code() != Code::CREATED {
            return Err(OscoreError::AkmaNotDecoded("no 2.01"));
        }
        check_content_format(answer)?;
        let payload = answer.payload();
        if payload.len() > AKMA_BODY_OCTETS_MAX {
            return Err(OscoreError::AkmaNotDecoded("body too long"));
        }
        let mut reader = Reader(payload);
        reader.array().filter(|items| *items == 2).ok_or(OscoreError::AkmaNotDecoded("no array of two"))?;
        read_nonce(&mut reader).ok_or(OscoreError::AkmaNotDecoded("N2"))?;
        let ue_sid = read_id(&mut reader).ok_or(OscoreError::AkmaNotDecoded("UE-SID"))?;
        if !reader.is_at_end() {
            return Err(OscoreError::AkmaNotDecoded("more than the array"));
        }
        if ue_sid == self.af_sid {
            return Err(OscoreError::AkmaNotDecoded("UE-SID is AF-SID"));
        }
        self.parameters(k_af, payload, ue_sid, self.af_sid)
    }

    fn parameters(
        &self,
        k_af: &[u8; 32],
        answer: &[u8],
        sender_id: KeyId,
        recipient_id: KeyId,
    ) -> Result<ContextParameters, OscoreError> {
        Ok(ContextParameters {
            master_secret: master_secret(k_af)?,
            master_salt: [&self.payload, answer].concat(),
            sender_id,
            recipient_id,
            id_context: None,
        })
    }
}

fn master_secret(k_af: &[u8; 32]) -> Result<MasterSecret, OscoreError> {
    let mut secret = Zeroizing::new([0; MASTER_SECRET_OCTETS]);
    Hkdf::<Sha256>::new(None, k_af).expand(MASTER_SECRET_INFO, secret.as_mut_slice()).expect("32 octets are one hash");
    MasterSecret::new(secret.as_slice())
}

fn is_a_kid(a_kid: &str) -> bool {
    (1..=A_KID_OCTETS_MAX).contains(&a_kid.len()) && a_kid.bytes().all(|octet| octet.is_ascii_graphic())
}

fn check_content_format(message: &Message) -> Result<(), OscoreError> {
    match message.option(number::CONTENT_FORMAT) {
        None => Ok(()),
        Some([octet]) if u16::from(*octet) == CONTENT_FORMAT_CBOR => Ok(()),
        Some(_) => Err(OscoreError::AkmaNotDecoded("Content-Format is not application/cbor")),
    }
}

fn read_nonce<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    reader.bytes().filter(|nonce| (NONCE_OCTETS_MIN..=NONCE_OCTETS_MAX).contains(&nonce.len()))
}

fn read_id(reader: &mut Reader<'_>) -> Option<KeyId> {
    KeyId::new(reader.bytes()?).ok()
}

/// OSC-INP: algorithms that are the ones that are used anyway, each once, in the order of their labels.
fn read_input(reader: &mut Reader<'_>) -> Result<(), OscoreError> {
    const NOT_DECODED: OscoreError = OscoreError::AkmaNotDecoded("OSC-INP");
    let pairs = reader.map().ok_or(NOT_DECODED)?;
    let mut last = None;
    for _ in 0..pairs {
        let label = reader.integer().ok_or(NOT_DECODED)?;
        if last.is_some_and(|last| label <= last) {
            return Err(NOT_DECODED);
        }
        last = Some(label);
        match (label, reader.integer().ok_or(NOT_DECODED)?) {
            (LABEL_HKDF, HKDF_SHA_256) | (LABEL_AEAD, AES_CCM_16_64_128) => {}
            (LABEL_HKDF | LABEL_AEAD, _) => return Err(OscoreError::AkmaNotSupported("algorithm in OSC-INP")),
            _ => return Err(OscoreError::AkmaNotSupported("label in OSC-INP")),
        }
    }
    Ok(())
}
