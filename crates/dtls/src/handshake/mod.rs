//! Handshake messages (RFC 6347 4.2, RFC 5246 7.4, RFC 9147 5.2): header, fragments, bodies.

pub(crate) mod exchange;
pub(crate) mod flight;
pub(crate) mod hello;
pub(crate) mod offer;
pub(crate) mod reassembly;
pub(crate) mod transcript;

use crate::codec::{Read, Reader, put_u16, put_u24};

/// What a handshake message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageType(pub(crate) u8);

impl MessageType {
    pub(crate) const HELLO_REQUEST: Self = Self(0);
    pub(crate) const CLIENT_HELLO: Self = Self(1);
    pub(crate) const SERVER_HELLO: Self = Self(2);
    pub(crate) const HELLO_VERIFY_REQUEST: Self = Self(3);
    pub(crate) const NEW_SESSION_TICKET: Self = Self(4);
    pub(crate) const ENCRYPTED_EXTENSIONS: Self = Self(8);
    pub(crate) const REQUEST_CONNECTION_ID: Self = Self(9);
    pub(crate) const NEW_CONNECTION_ID: Self = Self(10);
    pub(crate) const SERVER_KEY_EXCHANGE: Self = Self(12);
    pub(crate) const SERVER_HELLO_DONE: Self = Self(14);
    pub(crate) const CLIENT_KEY_EXCHANGE: Self = Self(16);
    pub(crate) const FINISHED: Self = Self(20);
    pub(crate) const KEY_UPDATE: Self = Self(24);
    pub(crate) const MESSAGE_HASH: Self = Self(254);
}

/// Octets of a fragment's header.
pub(crate) const HEADER_OCTETS: usize = 12;

/// A whole handshake message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) message_type: MessageType,
    pub(crate) sequence: u16,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Appends the fragment of `octets` octets from `offset` on.
    pub(crate) fn put_fragment(&self, offset: usize, octets: usize, out: &mut Vec<u8>) {
        let u24 = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        out.push(self.message_type.0);
        put_u24(out, u24(self.body.len()));
        put_u16(out, self.sequence);
        put_u24(out, u24(offset));
        put_u24(out, u24(octets));
        out.extend_from_slice(self.body.get(offset..offset + octets).unwrap_or_default());
    }

    /// As one fragment: the form that the transcript is made of (RFC 6347 4.2.6).
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_OCTETS + self.body.len());
        self.put_fragment(0, self.body.len(), &mut out);
        out
    }

    /// As TLS 1.3 would send it: the form that the transcript of DTLS 1.3 is made of (RFC 9147 5.2).
    pub(crate) fn encode_plain(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.body.len());
        out.push(self.message_type.0);
        put_u24(&mut out, u32::try_from(self.body.len()).unwrap_or(u32::MAX));
        out.extend_from_slice(&self.body);
        out
    }
}

/// A fragment as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'a> {
    pub(crate) message_type: MessageType,
    pub(crate) message_octets: usize,
    pub(crate) sequence: u16,
    pub(crate) offset: usize,
    pub(crate) data: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// Reads the next fragment of a record's content, which may hold several. One that reaches over its message's end is
    /// malformed.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Read<Self> {
        let message_type = MessageType(reader.u8()?);
        let message_octets = usize::try_from(reader.u24()?).map_err(|_| crate::codec::Malformed)?;
        let sequence = reader.u16()?;
        let offset = usize::try_from(reader.u24()?).map_err(|_| crate::codec::Malformed)?;
        let octets = usize::try_from(reader.u24()?).map_err(|_| crate::codec::Malformed)?;
        if offset + octets > message_octets {
            return Err(crate::codec::Malformed);
        }
        Ok(Self { message_type, message_octets, sequence, offset, data: reader.take(octets)? })
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.data.len() == self.message_octets
    }

    pub(crate) fn is_last(&self) -> bool {
        self.offset + self.data.len() == self.message_octets
    }

    pub(crate) fn to_message(self) -> Message {
        Message { message_type: self.message_type, sequence: self.sequence, body: self.data.to_vec() }
    }
}
