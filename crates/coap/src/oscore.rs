//! OSCORE (RFC 8613): requests and responses that are encrypted from end to end, over datagrams and streams alike, and
//! its keys from AKMA (TS 33.535 Annex D). No I/O, no clock, no randomness of its own.
//!
//! Start from [`SecurityContext`], which protects and verifies, and from [`AkmaRequest`], the exchange that makes one.
//! [`Message`] is what both take: a message without what belongs to its transport.
//!
//! # Driving it
//!
//! One side of an exchange calls [`SecurityContext::protect_request`] and keeps the [`SentRequest`] by its token until
//! [`SecurityContext::unprotect_response`] has taken the last response; the other calls
//! [`SecurityContext::unprotect_request`] and keeps the [`ReceivedRequest`] until
//! [`SecurityContext::protect_response`] has made it. Both sides may do both. What is retransmitted is the protected
//! message as it was: protecting it again would make another one, verifying it again is a replay, so deduplication by
//! message ID comes before. Outer Block options are dealt with before too; Inner ones are options like any other to a
//! context, and dealt with by [`OscoreConnection`] as [`InnerBlocks`] says.
//!
//! **Before anything is sent**, and whenever it likes besides, the driver of a context with [`Durability::Steps`] asks
//! [`SecurityContext::sequence_to_persist`], writes the number with what else it keeps of the context, syncs, and says so
//! with [`SecurityContext::sequence_persisted`]. A context that outlives the process comes back by
//! [`SecurityContext::restored`] with that number, and, unless it was stopped in order, with a fresh random
//! [`EchoValue`].
//!
//! ```
//! use coap::oscore::{ContextParameters, Durability, KeyId, MasterSecret, Message, SecurityContext, Verified};
//! use coap::{Code, Request};
//!
//! let parameters = ContextParameters {
//!     master_secret: MasterSecret::new(&[7; 16])?,
//!     master_salt: Vec::new(),
//!     sender_id: KeyId::new(&[1])?,
//!     recipient_id: KeyId::new(&[2])?,
//!     id_context: None,
//! };
//! let mut client = SecurityContext::fresh(&parameters, Durability::Volatile)?;
//! let mut server = SecurityContext::fresh(&parameters.reversed(), Durability::Volatile)?;
//!
//! let request = Message::request(&Request::post("msgin5g").content_format(50).payload(&b"{}"[..]))?;
//! let (protected, mut sent) = client.protect_request(&request)?;
//! let Verified::Request { message, mut exchange } = server.unprotect_request(&protected)? else {
//!     panic!("nothing was lost");
//! };
//! assert_eq!(message, request);
//!
//! let response = Message::new(Code::CHANGED, &[], b"taken")?;
//! let protected = server.protect_response(&mut exchange, &response)?;
//! assert_eq!(client.unprotect_response(&mut sent, &protected)?, response);
//! # Ok::<(), coap::oscore::OscoreError>(())
//! ```
//!
//! # Left out
//!
//! Group OSCORE, proxies (a request with Proxy-Uri or Proxy-Scheme is not protected), signalling messages of streams,
//! which stay as they are (RFC 8613 4.3), other algorithms than AES-CCM-16-64-128 and HKDF-SHA-256, the renewal of
//! Appendix B.2: a new `/akma` exchange does that.

mod akma;
mod blocks;
mod cbor;
mod connection;
mod context;
mod error;
mod exchange;
mod keys;
mod limits;
mod message;
mod option;
mod replay;
mod screening;
mod sequence;
#[cfg(test)]
mod vectors;

pub use akma::{
    AES_CCM_16_64_128, AKMA_PATH, AkmaRequest, CONTENT_FORMAT_CBOR, HKDF_SHA_256, LABEL_AEAD, LABEL_HKDF,
    MASTER_SECRET_INFO, NONCE_OCTETS, NONCE_OCTETS_MAX, NONCE_OCTETS_MIN, UA_PROTOCOL_OSCORE,
};
pub use blocks::{BlockBudget, InnerBlocks};
pub use connection::{OscoreConnection, OscoreCounters, Provenance};
pub use context::{ContextParameters, SecurityContext};
pub use error::OscoreError;
pub use exchange::{ReceivedRequest, SentRequest, Verified};
pub use keys::{IdContext, KeyId, MasterSecret};
pub use limits::{
    A_KID_OCTETS_MAX, AKMA_BODY_OCTETS_MAX, ECHO_OCTETS, ID_CONTEXT_OCTETS_MAX, KEY_ID_OCTETS_MAX,
    MASTER_SALT_OCTETS_MAX, MASTER_SECRET_OCTETS_MAX, MESSAGE_OCTETS_MAX, OPTION_VALUE_OCTETS_MAX, OPTIONS_MAX,
    OSCORE_OPTION_OCTETS_MAX, PARTIAL_IV_OCTETS_MAX, PLAINTEXT_OCTETS_MAX, REPLAY_WINDOW_SIZE, SEQUENCE_NUMBER_MAX,
    SEQUENCE_STEP_DEFAULT,
};
pub use message::Message;
pub use option::OscoreOption;
pub use replay::{EchoValue, ReplayStart, ReplayWindow};
pub use screening::{AddressQuestion, Outer};
pub use sequence::Durability;
