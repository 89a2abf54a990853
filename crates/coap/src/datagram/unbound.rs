//! Datagrams of whoever has no association: read, answered, and forgotten.

use super::wire::{self, Datagram, Type};
use crate::code::{Code, Kind};
use crate::frame::{OptionWriter, Token};
use crate::oscore::{Message, OscoreOption};

/// Block1 and Block2 (RFC 7959 2.1).
const BLOCKS: [u16; 2] = [27, 23];

/// RFC 8613 2.
const OSCORE: u16 = 9;

/// One datagram of somebody with whom there is no association yet. What is answered to it holds no memory: for listeners
/// that serve something before they know the peer, such as the `/akma` resource.
#[derive(Clone, Debug)]
pub struct Unbound {
    kind: Type,
    message_id: u16,
    token: Token,
    message: Message,
    octets: usize,
}

impl Unbound {
    /// Reads a datagram; none for what is no CoAP, or is more than [`Message`] holds.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let octets = datagram.len();
        let datagram = Datagram::parse(datagram).ok()?;
        let message = Message::from_body(datagram.frame.code, datagram.frame.body()).ok()?;
        Some(Self {
            kind: datagram.kind,
            message_id: datagram.message_id,
            token: datagram.frame.token,
            message,
            octets,
        })
    }

    /// A confirmable message that is to be sent.
    pub(crate) fn confirmable(message_id: u16, token: &[u8], message: Message) -> Self {
        let token = Token::from_slice(token).unwrap_or_default();
        Self { kind: Type::Confirmable, message_id, token, message, octets: 0 }
    }

    /// Code, options and payload.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Its Message ID, by which its sender's copies of it are known.
    #[must_use]
    pub fn message_id(&self) -> u16 {
        self.message_id
    }

    /// How large it was.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Its token.
    #[must_use]
    pub fn token(&self) -> &[u8] {
        self.token.as_slice()
    }

    /// Whether it asks for something.
    #[must_use]
    pub fn is_request(&self) -> bool {
        matches!(self.kind, Type::Confirmable | Type::NonConfirmable) && self.message.code().kind() == Kind::Request
    }

    /// Whether it answers something, along with an acknowledgement or in a message of its own.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.kind != Type::Reset && self.message.code().kind() == Kind::Response
    }

    /// Whether it says nothing: an acknowledgement alone, a Reset, a Ping.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.message.code().kind() == Kind::Empty
    }

    /// Whether it rejects something.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.kind == Type::Reset
    }

    /// Whether it asks for an acknowledgement.
    #[must_use]
    pub fn is_confirmable(&self) -> bool {
        self.kind == Type::Confirmable
    }

    /// Whether it is one.
    #[must_use]
    pub fn is_acknowledgement(&self) -> bool {
        self.kind == Type::Acknowledgement
    }

    /// The datagram with that code, and without options but OSCORE.
    pub(crate) fn stripped(&self, code: Code) -> Vec<u8> {
        let mut options = Vec::new();
        if let Some(value) = self.message.option(OSCORE) {
            OptionWriter::new(&mut options).octets(OSCORE, value);
        }
        wire::write(self.kind, self.message_id, code, &self.token, &options, self.message.payload())
    }

    /// Whether it is part of a larger message (RFC 7959).
    #[must_use]
    pub fn is_block(&self) -> bool {
        self.message.options().any(|(number, _)| BLOCKS.contains(&number))
    }

    /// The `kid` of its OSCORE option; none without. A request for a further block has it, too, and no payload.
    #[must_use]
    pub fn kid(&self) -> Option<&[u8]> {
        OscoreOption::parse(self.message.option(OSCORE)?).ok()?.kid
    }

    /// Whether it has an OSCORE option, readable or not.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.message.option(OSCORE).is_some()
    }

    /// The answer to a request: along with the acknowledgement, or, if none is wanted, with that Message ID.
    #[must_use]
    pub fn answer(&self, response: &Message, message_id: u16) -> Vec<u8> {
        let (kind, message_id) = match self.kind {
            Type::Confirmable => (Type::Acknowledgement, self.message_id),
            _ => (Type::NonConfirmable, message_id),
        };
        let mut datagram = wire::write(kind, message_id, response.code(), &self.token, &[], &[]);
        datagram.extend_from_slice(response.body());
        datagram
    }

    /// The Reset that a Ping, or another confirmable message that is no request, gets (RFC 7252 4.2, 4.3); none for the
    /// others.
    #[must_use]
    pub fn reset(&self) -> Option<Vec<u8>> {
        let rejected = self.kind == Type::Confirmable && self.message.code().kind() != Kind::Request;
        rejected.then(|| wire::empty(Type::Reset, self.message_id))
    }
}
