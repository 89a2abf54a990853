//! What happens on a connection, whatever carries it.

use crate::code::Code;
use crate::message::{ExchangeId, Request, Response};
use crate::signal::Release;

pub use ConnectionEvent as StreamEvent;

/// What happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// The peer's CSM came; told once, and over streams only. Later CSMs change what [`crate::StreamConnection::peer_max_message_size`] says.
    PeerReady {
        /// The largest message that the peer takes, in octets.
        max_message_size: u32,
        /// The peer can do block-wise transfer (RFC 8323 5.3.2). Streams of this crate do none.
        block_wise_transfer: bool,
    },
    /// The peer asks for something; answer it with [`crate::Connection::respond`].
    Request {
        /// What it asks.
        request: Request,
    },
    /// The peer answers. While [`Response::observe`] is set, it may answer the same request again (RFC 7641): the first
    /// response without it is the last.
    Response {
        /// What it answers.
        exchange: ExchangeId,
        /// The answer.
        response: Response,
    },
    /// The peer no longer observes with a request that was answered before (RFC 7641 3.6): it deregistered, or used the
    /// token anew, or, over datagrams, rejected a notification or never acknowledged it. A deregistration is itself a request, which comes next.
    ObservationEnded {
        /// The request that began the observation.
        exchange: ExchangeId,
    },
    /// A request of ours gets no answer that can be handed over. The exchange is over, and with it an observation.
    Failed {
        /// The request.
        exchange: ExchangeId,
        /// Why.
        failure: Failure,
    },
    /// The peer answered a Ping.
    Pong {
        /// It says that it has processed all that came before (RFC 8323 5.4.1).
        custody: bool,
    },
    /// Nobody answers where the peer's datagrams come from (datagrams only, [`crate::DatagramConnection::give_up_address`]):
    /// nothing is sent there, and the peer counts as away until it proves an address.
    Unreachable,
    /// The peer wants to end the connection (streams only): no new requests, and to be closed once
    /// [`crate::StreamConnection::is_settled`].
    Released {
        /// What then.
        release: Release,
    },
    /// The peer ended the connection (streams only). No outstanding request will be answered.
    Aborted {
        /// The option of our CSM that it did not understand.
        bad_csm_option: Option<u16>,
        /// Its words, at most 256 octets, without control characters.
        diagnostic: String,
    },
}

/// Why a request of ours failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The response has a critical option which is not known here, too many options (RFC 7252 5.4.1: such a response is
    /// rejected), or blocks that do not fit together (RFC 7959). The peer said so itself, under OSCORE too.
    Unusable,
    /// The response is larger than [`crate::DatagramConfig::max_message_size_own`].
    TooLarge,
    /// The peer rejected the request with a Reset (RFC 7252 4.2).
    Reset,
    /// The peer acknowledged none of the transmissions (RFC 7252 4.2): it is away, or the network is.
    NotAcknowledged,
    /// No response came within MAX_TRANSMIT_WAIT (RFC 7252 4.8.2) after the peer acknowledged the request, or after one
    /// that asks for no acknowledgement was sent.
    NoAnswer,
    /// Under OSCORE only: a response came that the peer's keys did not make, or not to this request, or that could not be
    /// read so far as to tell. It was passed over, and no other can come under its token. Nothing is known of what became of
    /// the request: it is as if no answer had come.
    NotVerified,
    /// Under OSCORE only: the peer, or anybody, answered the request without protection, with this code. It is as if no
    /// answer had come, too.
    NotProtected(Code),
}
