//! What OSCORE protects of a message: its code, options and payload. They lie the same over every transport.

use std::fmt;

use super::error::OscoreError;
use super::limits::{MESSAGE_OCTETS_MAX, OPTION_VALUE_OCTETS_MAX, OPTIONS_MAX};
use crate::code::Code;
use crate::datagram::merged;
use crate::error::StreamError;
use crate::frame::{OptionReader, OptionWriter, PAYLOAD_MARKER};
use crate::message::{RequestBuilder, Response};

/// Numbers of the options that OSCORE looks at.
pub(crate) mod number {
    pub(crate) const URI_HOST: u16 = 3;
    pub(crate) const OBSERVE: u16 = 6;
    pub(crate) const URI_PORT: u16 = 7;
    pub(crate) const OSCORE: u16 = 9;
    pub(crate) const URI_PATH: u16 = 11;
    pub(crate) const CONTENT_FORMAT: u16 = 12;
    pub(crate) const MAX_AGE: u16 = 14;
    pub(crate) const PROXY_URI: u16 = 35;
    pub(crate) const PROXY_SCHEME: u16 = 39;
    /// RFC 9175 2.
    pub(crate) const ECHO: u16 = 252;
}

/// A message without what belongs to its transport: version, type, message ID, length, token. Those OSCORE leaves as
/// they are (RFC 8613 4.2).
///
/// The body is well formed and within the limits of this module, always.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    code: Code,
    body: Vec<u8>,
}

impl Message {
    /// A message of those options, in any order; options with one number keep theirs.
    ///
    /// # Errors
    /// [`OscoreError::TooManyOptions`], [`OscoreError::MessageTooLarge`], or [`OscoreError::Malformed`] for an option
    /// that is too long.
    pub fn new(code: Code, options: &[(u16, &[u8])], payload: &[u8]) -> Result<Self, OscoreError> {
        let mut options = options.to_vec();
        options.sort_by_key(|(number, _)| *number);
        let mut body = Vec::new();
        write_body(&mut body, &options, payload);
        Self::from_body(code, body)
    }

    /// A message as it lies in a datagram or frame: all that follows its token.
    ///
    /// # Errors
    /// As [`Message::new`], and [`OscoreError::Malformed`] for what is no sequence of options with a payload.
    pub fn from_body(code: Code, body: impl Into<Vec<u8>>) -> Result<Self, OscoreError> {
        let body = body.into();
        if body.len() > MESSAGE_OCTETS_MAX {
            return Err(OscoreError::MessageTooLarge { octets: body.len(), octets_max: MESSAGE_OCTETS_MAX });
        }
        let mut options = OptionReader::new(&body);
        let mut count = 0;
        while let Some((_, value)) = options.next().map_err(malformed)? {
            count += 1;
            if count > OPTIONS_MAX {
                return Err(OscoreError::TooManyOptions);
            }
            if value.len() > OPTION_VALUE_OCTETS_MAX {
                return Err(OscoreError::Malformed("option value too long"));
            }
        }
        options.payload().map_err(malformed)?;
        Ok(Self { code, body })
    }

    /// The message of a request to be sent.
    ///
    /// # Errors
    /// As [`Message::new`].
    pub fn request(request: &RequestBuilder<'_>) -> Result<Self, OscoreError> {
        let mut body = Vec::new();
        request.write_options(&mut OptionWriter::new(&mut body));
        append_payload(&mut body, request.payload_octets());
        Self::from_body(request.method(), body)
    }

    /// The message of a response to be sent. [`Response::observe`] becomes an Observe option without value; over
    /// datagrams the sequence of notifications is the transport's, which writes its own outer option.
    ///
    /// # Errors
    /// As [`Message::new`].
    pub fn response(response: &Response) -> Result<Self, OscoreError> {
        let mut body = Vec::new();
        response.write_options(&mut OptionWriter::new(&mut body), response.observe);
        append_payload(&mut body, &response.payload);
        Self::from_body(response.code, body)
    }

    /// The options of `base`, which is well formed, but those in `left_out`, with those `added`, in ascending order; and a
    /// payload.
    pub(crate) fn merged(
        code: Code,
        base: &[u8],
        left_out: &[u16],
        added: &[(u16, &[u8])],
        payload: &[u8],
    ) -> Result<Self, OscoreError> {
        let mut body = merged(OptionReader::new(base), left_out, added);
        append_payload(&mut body, payload);
        Self::from_body(code, body)
    }

    /// That code, and nothing else.
    pub(crate) const fn empty(code: Code) -> Self {
        Self { code, body: Vec::new() }
    }

    /// Options without payload, as they lie in the body.
    pub(crate) fn options_octets(&self) -> &[u8] {
        let payload = self.payload().len();
        let marked = if payload == 0 { 0 } else { 1 + payload };
        self.body.get(..self.body.len() - marked).unwrap_or_default()
    }

    /// Its code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Options, marker and payload as they go over the wire after the token.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, for whoever sends it on.
    #[must_use]
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// Number and value of each option, in the order of their numbers.
    pub fn options(&self) -> impl Iterator<Item = (u16, &[u8])> {
        let mut options = OptionReader::new(&self.body);
        std::iter::from_fn(move || options.next().ok().flatten())
    }

    /// The value of the first option with that number.
    #[must_use]
    pub fn option(&self, number: u16) -> Option<&[u8]> {
        self.options().find(|(found, _)| *found == number).map(|(_, value)| value)
    }

    /// This request with the Echo option of `response`, to be sent again; none if the response asks for nothing such: it
    /// is no 4.01, or has no Echo option of 1 to 40 octets (RFC 9175 2.2.1).
    #[must_use]
    pub fn repeated_for(&self, response: &Self) -> Option<Self> {
        let echo = response.option(number::ECHO).filter(|echo| (1..=40).contains(&echo.len()))?;
        if response.code != Code::UNAUTHORIZED {
            return None;
        }
        let mut options: Vec<_> = self.options().filter(|(found, _)| *found != number::ECHO).collect();
        options.push((number::ECHO, echo));
        Self::new(self.code, &options, self.payload()).ok()
    }

    /// The payload; empty if there is none.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let mut options = OptionReader::new(&self.body);
        while let Ok(Some(_)) = options.next() {}
        options.payload().unwrap_or_default()
    }
}

impl fmt::Debug for Message {
    /// Prints the length of the body, not its octets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("code", &self.code).field("body_octets", &self.body.len()).finish()
    }
}

/// Writes options, which are in the order of their numbers, and payload.
pub(crate) fn write_body(out: &mut Vec<u8>, options: &[(u16, &[u8])], payload: &[u8]) {
    let mut writer = OptionWriter::new(out);
    for (number, value) in options {
        writer.octets(*number, value);
    }
    append_payload(out, payload);
}

fn append_payload(out: &mut Vec<u8>, payload: &[u8]) {
    if !payload.is_empty() {
        out.reserve(1 + payload.len());
        out.push(PAYLOAD_MARKER);
        out.extend_from_slice(payload);
    }
}

fn malformed(error: StreamError) -> OscoreError {
    match error {
        StreamError::Malformed(what) => OscoreError::Malformed(what),
        _ => OscoreError::Malformed("options cannot be read"),
    }
}
