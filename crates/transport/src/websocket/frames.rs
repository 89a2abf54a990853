//! The frames of a connection after its handshake (RFC 6455 clauses 5 and 7).
//!
//! ```text
//! octets ─▶ header judged ─▶ frame whole ─▶ tungstenite: unmask, put fragments together ─▶ message
//!                │                                       └─ Ping: Pong; Close: Close, closed
//!                └─ unmasked, text, too large, reserved bits ─▶ error, whose Close code the driver sends
//! ```

use std::io::{self, Cursor, Read, Write};

use bytes::Bytes;
use thiserror::Error;
use tungstenite::Error as LibraryError;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, FrameHeader};
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

/// Frames that one message may come in. One more ends the connection (1008): fragments are for those who do not know yet
/// how long a message will be, and a CoAP message is small.
pub const FRAGMENTS_MAX: u32 = 64;

/// What a peer did that ends the connection; the Close code that it is told stands with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// A client sent a frame without mask (RFC 6455 5.1). 1002.
    #[error("unmasked WebSocket frame from a client")]
    Unmasked,
    /// A server sent a frame with mask (RFC 6455 5.1). 1002.
    #[error("masked WebSocket frame from a server")]
    Masked,
    /// A text frame: CoAP is binary (RFC 8323 4.2). 1003.
    #[error("WebSocket text frame")]
    Text,
    /// A frame, or the fragments of a message together, are larger than a CoAP message may be. 1009.
    #[error("WebSocket message larger than a CoAP message may be")]
    TooLarge,
    /// A message comes in more than [`FRAGMENTS_MAX`] frames. 1008.
    #[error("WebSocket message in too many fragments")]
    TooManyFragments,
    /// Anything else that RFC 6455 does not allow. 1002.
    #[error("{0}")]
    Malformed(&'static str),
}

impl WebSocketError {
    /// The reason, as a fixed text.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unmasked => "unmasked WebSocket frame from a client",
            Self::Masked => "masked WebSocket frame from a server",
            Self::Text => "WebSocket text frame",
            Self::TooLarge => "WebSocket message larger than a CoAP message may be",
            Self::TooManyFragments => "WebSocket message in too many fragments",
            Self::Malformed(what) => what,
        }
    }

    /// The status code of the Close frame that answers it (RFC 6455 7.4.1).
    #[must_use]
    pub fn close_code(&self) -> u16 {
        match self {
            Self::Unmasked | Self::Masked | Self::Malformed(_) => 1002,
            Self::Text => 1003,
            Self::TooManyFragments => 1008,
            Self::TooLarge => 1009,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The peer did what it must not do, and is to be told.
    Failed,
    /// Our Close is out, the peer's has not come.
    Closing,
    /// The peer's Close has come, and ours is out.
    Closed,
}

/// What the header of a frame tells.
#[derive(Clone, Copy, Debug)]
struct Header {
    /// Octets of the whole frame.
    frame_octets: usize,
    /// Of a data frame: how many frames of its message have come with it, 0 with the last.
    fragments: Option<u32>,
}

/// One side of a connection after its handshake: octets in, messages out, and the other way round.
///
/// Give what comes to [`WebSocket::receive`] until it takes no more, hand messages to [`WebSocket::send`], and after either
/// send what [`WebSocket::poll_transmit`] returns. Between frames it holds less than a kilobyte.
#[derive(Debug)]
pub struct WebSocket {
    role: Role,
    message_octets_max: usize,
    library: WebSocketContext,
    /// The unfinished frame, from its header on. Never more than twice what has come of it.
    frame: Vec<u8>,
    header: Option<Header>,
    /// Frames of the unfinished message.
    fragments: u32,
    /// The library's buffers have grown beyond what an idle connection should keep.
    swollen: bool,
    output: Vec<u8>,
    phase: Phase,
}

impl WebSocket {
    /// The side that was connected to. `message_octets_max` bounds what is received: a message, and a frame.
    #[must_use]
    pub fn server(message_octets_max: usize) -> Self {
        Self::new(Role::Server, message_octets_max)
    }

    /// The side that connected.
    #[must_use]
    pub fn client(message_octets_max: usize) -> Self {
        Self::new(Role::Client, message_octets_max)
    }

    fn new(role: Role, message_octets_max: usize) -> Self {
        Self {
            role,
            message_octets_max,
            library: library(role, message_octets_max),
            frame: Vec::new(),
            header: None,
            fragments: 0,
            swollen: false,
            output: Vec::new(),
            phase: Phase::Open,
        }
    }

    /// Takes octets from the front of `octets` up to the end of a message, and returns that. `None`: all octets are taken,
    /// or the peer has said Close. Pings are answered on the way.
    ///
    /// # Errors
    /// [`WebSocketError`]: nothing more is taken. Tell the peer by [`WebSocket::close`].
    pub fn receive(&mut self, octets: &mut &[u8]) -> Result<Option<Bytes>, WebSocketError> {
        let received = self.receive_one(octets);
        if received.is_err() {
            (self.frame, self.header) = (Vec::new(), None);
            self.phase = Phase::Failed;
        }
        received
    }

    fn receive_one(&mut self, octets: &mut &[u8]) -> Result<Option<Bytes>, WebSocketError> {
        while matches!(self.phase, Phase::Open | Phase::Closing) && self.take_frame(octets)? {
            if let Some(message) = self.read_frame()? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Sends one message, also to a peer that did what it must not do; does nothing once either side has said Close.
    pub fn send(&mut self, message: Vec<u8>) {
        if matches!(self.phase, Phase::Open | Phase::Failed) {
            self.swollen |= message.len() > BUFFER_OCTETS;
            // Writing into memory fails for nothing but the phase, which was asked.
            let _ = self.library.write(&mut Pipe { input: &[], output: &mut self.output }, Message::binary(message));
            self.shrink();
        }
    }

    /// Says Close with a status code (RFC 6455 7.4.1), unless that was said already. After it nothing is sent.
    pub fn close(&mut self, code: u16) {
        if matches!(self.phase, Phase::Open | Phase::Failed) {
            let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
            let _ = self.library.close(&mut Pipe { input: &[], output: &mut self.output }, Some(frame));
            self.phase = if self.phase == Phase::Open { Phase::Closing } else { Phase::Closed };
        }
    }

    /// Whether the peer has said Close, and the answer to it is in [`WebSocket::poll_transmit`]; or it was told what it
    /// did wrong.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// All octets that are to be sent, if there are any.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.output.is_empty()).then(|| std::mem::take(&mut self.output))
    }

    /// Octets that wait for [`WebSocket::poll_transmit`].
    #[must_use]
    pub fn transmit_octets(&self) -> usize {
        self.output.len()
    }

    /// Moves octets into the unfinished frame; whether it is whole now.
    fn take_frame(&mut self, octets: &mut &[u8]) -> Result<bool, WebSocketError> {
        loop {
            let frame_octets = match self.header {
                Some(header) => header.frame_octets,
                None => match self.judge_header()? {
                    Some(header) => {
                        self.header = Some(header);
                        header.frame_octets
                    }
                    None => self.frame.len() + 1,
                },
            };
            let lacking = frame_octets.saturating_sub(self.frame.len());
            if lacking == 0 && self.header.is_some() {
                return Ok(true);
            }
            if octets.is_empty() {
                return Ok(false);
            }
            let (taken, rest) = octets.split_at(lacking.min(octets.len()));
            self.frame.extend_from_slice(taken);
            *octets = rest;
        }
    }

    /// Reads the header of the unfinished frame, once it is there, and refuses what need not be read any further.
    fn judge_header(&self) -> Result<Option<Header>, WebSocketError> {
        let mut cursor = Cursor::new(&self.frame);
        let Some((header, payload_octets)) = FrameHeader::parse(&mut cursor).map_err(meaning)? else {
            return Ok(None);
        };
        match (self.role, header.mask) {
            (Role::Server, None) => return Err(WebSocketError::Unmasked),
            (Role::Client, Some(_)) => return Err(WebSocketError::Masked),
            _ => {}
        }
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(WebSocketError::Malformed("WebSocket frame of an extension that was not agreed on"));
        }
        let fragments = match header.opcode {
            OpCode::Data(Data::Text) => return Err(WebSocketError::Text),
            OpCode::Data(_) => Some(if header.is_final { 0 } else { self.fragments + 1 }),
            OpCode::Control(_) if !header.is_final => {
                return Err(WebSocketError::Malformed("WebSocket control frame in fragments"));
            }
            OpCode::Control(Control::Close | Control::Ping | Control::Pong) if payload_octets > CONTROL_OCTETS_MAX => {
                return Err(WebSocketError::Malformed("WebSocket control frame of more than 125 octets"));
            }
            OpCode::Control(_) => None,
        };
        if fragments.is_some_and(|fragments| fragments >= FRAGMENTS_MAX) {
            return Err(WebSocketError::TooManyFragments);
        }
        match usize::try_from(payload_octets) {
            Ok(payload_octets) if payload_octets <= self.message_octets_max => {
                let header_octets = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
                Ok(Some(Header { frame_octets: header_octets.saturating_add(payload_octets), fragments }))
            }
            _ => Err(WebSocketError::TooLarge),
        }
    }

    /// Gives the whole frame to the library; a message, if it is the last of one.
    fn read_frame(&mut self) -> Result<Option<Bytes>, WebSocketError> {
        let frame = std::mem::take(&mut self.frame);
        if let Some(fragments) = self.header.take().and_then(|header| header.fragments) {
            self.fragments = fragments;
        }
        self.swollen |= frame.len() > BUFFER_OCTETS;
        let mut pipe = Pipe { input: &frame, output: &mut self.output };
        let message = match self.library.read(&mut pipe) {
            Ok(Message::Binary(message)) => Some(message),
            Ok(Message::Text(_)) => return Err(WebSocketError::Text),
            Ok(Message::Close(_)) => {
                self.phase = Phase::Closed;
                None
            }
            // Not the last fragment.
            Err(LibraryError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            Ok(_) => None,
            Err(error) => return Err(meaning(error)),
        };
        // The answer to a Ping or Close. After the latter the library says that the connection is over.
        let _ = self.library.flush(&mut pipe);
        self.shrink();
        Ok(message)
    }

    /// A fresh context where the old one keeps the largest message's memory; between messages there is nothing else in it.
    fn shrink(&mut self) {
        if self.swollen && self.fragments == 0 && self.phase == Phase::Open {
            self.library = library(self.role, self.message_octets_max);
            self.swollen = false;
        }
    }
}

fn library(role: Role, message_octets_max: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_OCTETS)
        // What is written goes on at once, into `WebSocket::output`, so that no buffer of the library's can grow full.
        .write_buffer_size(0)
        .max_message_size(Some(message_octets_max))
        .max_frame_size(Some(message_octets_max));
    WebSocketContext::new(role, Some(config))
}

fn meaning(error: LibraryError) -> WebSocketError {
    match error {
        LibraryError::Capacity(_) => WebSocketError::TooLarge,
        LibraryError::Utf8(_) => WebSocketError::Malformed("WebSocket Close whose reason is not UTF-8"),
        _ => WebSocketError::Malformed("malformed WebSocket frame, or one out of place"),
    }
}

/// What the library reads from and writes to: memory.
struct Pipe<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.output.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// RFC 6455 5.5.
const CONTROL_OCTETS_MAX: u64 = 125;

/// What the library reads at once, and keeps.
const BUFFER_OCTETS: usize = 512;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    const MESSAGE_OCTETS_MAX: usize = 70_000;

    /// A frame as a client masks it, of whatever may be wrong.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        const MASK: [u8; 4] = [0x5a, 0x01, 0xff, 0x80];
        let mut octets = vec![first];
        match payload.len() {
            length @ 0..=125 => octets.push(0x80 | length as u8),
            length @ 126..=65_535 => {
                octets.push(0x80 | 126);
                octets.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                octets.push(0x80 | 127);
                octets.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        octets.extend_from_slice(&MASK);
        octets.extend(payload.iter().zip(MASK.iter().cycle()).map(|(octet, mask)| octet ^ mask));
        octets
    }

    /// Everything that comes out of octets, and the error that ends it.
    fn receive(socket: &mut WebSocket, mut octets: &[u8]) -> (Vec<Vec<u8>>, Option<WebSocketError>) {
        let mut messages = Vec::new();
        loop {
            match socket.receive(&mut octets) {
                Ok(Some(message)) => messages.push(message.to_vec()),
                Ok(None) => return (messages, None),
                Err(error) => return (messages, Some(error)),
            }
        }
    }

    fn offence(octets: &[u8]) -> WebSocketError {
        let mut socket = WebSocket::server(MESSAGE_OCTETS_MAX);
        receive(&mut socket, octets).1.unwrap()
    }

    const FINAL: u8 = 0x80;
    const CONTINUATION: u8 = 0;
    const TEXT: u8 = 1;
    const BINARY: u8 = 2;
    const CLOSE: u8 = 8;
    const PING: u8 = 9;

    /// RFC 6455 5.7: an unmasked Ping with a body, and a Binary message in 16 and in 64 bits of length.
    #[test]
    fn the_examples_of_rfc_6455_are_read_by_a_client() {
        let mut client = WebSocket::client(MESSAGE_OCTETS_MAX);
        let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
        assert_eq!(receive(&mut client, &ping), (vec![], None));
        let pong = client.poll_transmit().unwrap();
        assert_eq!((pong[0], pong[1]), (0x8a, 0x85), "a client's Pong is masked");
        let mut message = vec![0x82, 0x7e, 0x01, 0x00];
        message.extend([7; 256]);
        message.extend([0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
        message.extend([8; 65_536]);
        assert_eq!(receive(&mut client, &message), (vec![vec![7; 256], vec![8; 65_536]], None));
    }

    #[test]
    fn what_a_header_shows_to_be_wrong_is_refused_before_anything_follows_it() {
        for (start, error, code) in [
            (vec![FINAL | BINARY, 0x01], WebSocketError::Unmasked, 1002),
            (vec![FINAL | TEXT, 0x81, 0, 0, 0, 0], WebSocketError::Text, 1003),
            (vec![TEXT, 0x81, 0, 0, 0, 0], WebSocketError::Text, 1003),
            (
                [&[FINAL | BINARY, 0x80 | 127][..], &70_001_u64.to_be_bytes(), &[0; 4]].concat(),
                WebSocketError::TooLarge,
                1009,
            ),
            (
                [&[FINAL | BINARY, 0x80 | 127][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat(),
                WebSocketError::TooLarge,
                1009,
            ),
        ] {
            let offence = offence(&start);
            assert_eq!((offence, offence.close_code()), (error, code), "{start:x?}");
        }
        for (start, what) in [
            (vec![FINAL | 0x40 | BINARY, 0x81, 0, 0, 0, 0], "compressed"),
            (vec![FINAL | 3, 0x81, 0, 0, 0, 0], "reserved opcode"),
            (vec![FINAL | 11, 0x81, 0, 0, 0, 0], "reserved control opcode"),
            (vec![PING, 0x81, 0, 0, 0, 0], "control frame in fragments"),
            (vec![FINAL | PING, 0x80 | 126, 0, 126, 0, 0, 0, 0], "long control frame"),
            (frame(FINAL | CONTINUATION, b"x"), "continuation of nothing"),
            ([frame(BINARY, b"x"), frame(FINAL | BINARY, b"y")].concat(), "message within a message"),
            (frame(FINAL | CLOSE, &[3]), "Close with half a code"),
            (frame(FINAL | CLOSE, &[3, 0xe8, 0xff]), "Close whose reason is no text"),
        ] {
            let offence = offence(&start);
            assert!(matches!(offence, WebSocketError::Malformed(_)), "{what}: {offence:?}");
            assert_eq!(offence.close_code(), 1002, "{what}");
        }
        let mut client = WebSocket::client(MESSAGE_OCTETS_MAX);
        assert_eq!(receive(&mut client, &frame(FINAL | BINARY, b"x")).1, Some(WebSocketError::Masked));
    }

    #[test]
    fn a_length_that_is_announced_takes_no_memory() {
        let mut server = WebSocket::server(MESSAGE_OCTETS_MAX);
        let start = [&[FINAL | BINARY, 0x80 | 127][..], &65_536_u64.to_be_bytes(), &[0; 4], b"some"].concat();
        assert_eq!(receive(&mut server, &start), (vec![], None));
        assert!(server.frame.capacity() <= 2 * start.len(), "{}", server.frame.capacity());
    }

    /// What the documentation promises of an idle connection: the structure and the library's one buffer.
    #[test]
    fn between_messages_less_than_a_kilobyte_is_held() {
        const SHARED_BUFFER_OVERHEAD_OCTETS: usize = 64;
        assert!(size_of::<WebSocket>() + BUFFER_OCTETS + SHARED_BUFFER_OVERHEAD_OCTETS < 1_024);
        let mut server = WebSocket::server(MESSAGE_OCTETS_MAX);
        assert_eq!(receive(&mut server, &frame(FINAL | BINARY, &[7; 60_000])).0.len(), 1);
        server.send(vec![7; 60_000]);
        assert!(server.poll_transmit().is_some());
        assert!(!server.swollen && server.frame.capacity() == 0 && server.output.capacity() == 0);
    }

    #[test]
    fn fragments_make_a_message_up_to_their_number_and_size() {
        let mut server = WebSocket::server(MESSAGE_OCTETS_MAX);
        let octets =
            [frame(BINARY, b"one "), frame(FINAL | PING, b"?"), frame(FINAL | CONTINUATION, b"message")].concat();
        assert_eq!(receive(&mut server, &octets), (vec![b"one message".to_vec()], None));
        assert_eq!(server.poll_transmit().unwrap(), [0x8a, 0x01, b'?'], "a Ping may come between fragments");

        let mut most = frame(BINARY, b"");
        (0..FRAGMENTS_MAX - 2).for_each(|_| most.extend(frame(CONTINUATION, b"")));
        let last = [&most[..], &frame(FINAL | CONTINUATION, b"end")].concat();
        assert_eq!(receive(&mut server, &last), (vec![b"end".to_vec()], None));
        let more = [&most[..], &frame(CONTINUATION, b"")].concat();
        assert_eq!(offence(&more), WebSocketError::TooManyFragments);
        assert_eq!(WebSocketError::TooManyFragments.close_code(), 1008);

        let large = [frame(BINARY, &[0; 40_000]), frame(FINAL | CONTINUATION, &[0; 30_001])].concat();
        assert_eq!(offence(&large), WebSocketError::TooLarge);
    }

    #[test]
    fn close_is_answered_once_and_ends_both_directions() {
        let mut server = WebSocket::server(MESSAGE_OCTETS_MAX);
        let octets = [frame(FINAL | CLOSE, &[3, 0xe8]), frame(FINAL | BINARY, b"late")].concat();
        assert_eq!(receive(&mut server, &octets), (vec![], None));
        assert!(server.is_closed());
        assert_eq!(server.poll_transmit().unwrap(), [0x88, 0x02, 3, 0xe8]);
        server.send(b"late".to_vec());
        server.close(1000);
        assert_eq!(server.poll_transmit(), None);

        let mut client = WebSocket::client(MESSAGE_OCTETS_MAX);
        let mut server = WebSocket::server(MESSAGE_OCTETS_MAX);
        client.send(b"before".to_vec());
        client.close(1000);
        client.send(b"after".to_vec());
        assert!(!client.is_closed());
        assert_eq!(receive(&mut server, &client.poll_transmit().unwrap()), (vec![b"before".to_vec()], None));
        assert_eq!(receive(&mut client, &server.poll_transmit().unwrap()), (vec![], None));
        assert!(client.is_closed() && server.is_closed());
    }

    #[test]
    fn a_peer_is_told_what_it_did_wrong_and_hears_no_more() {
        let mut server = WebSocket::server(MESSAGE_OCTETS_MAX);
        assert_eq!(receive(&mut server, &frame(FINAL | TEXT, b"{}")).1, Some(WebSocketError::Text));
        server.send(b"why".to_vec());
        server.close(WebSocketError::Text.close_code());
        server.send(b"more".to_vec());
        assert_eq!(server.poll_transmit().unwrap(), *b"\x82\x03why\x88\x02\x03\xeb");
        assert_eq!(receive(&mut server, &frame(FINAL | BINARY, b"x")), (vec![], None));
        assert_eq!(server.poll_transmit(), None);
    }

    fn cut(octets: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let mut rest = octets;
        for length in lengths.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            pieces.push(piece.to_vec());
            rest = after;
        }
        pieces
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Both directions, cut anywhere: what one side sends is what the other receives, in order.
        #[test]
        fn messages_arrive_as_they_were_sent_however_their_octets_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2_000), 1..8),
            lengths in prop::collection::vec(1_usize..700, 1..6),
            from_server in any::<bool>(),
        ) {
            let (client, server) = (WebSocket::client(MESSAGE_OCTETS_MAX), WebSocket::server(MESSAGE_OCTETS_MAX));
            let (mut from, mut to) = if from_server { (server, client) } else { (client, server) };
            for message in &messages {
                from.send(message.clone());
            }
            let octets = from.poll_transmit().unwrap();
            let mut received = Vec::new();
            for piece in cut(&octets, &lengths) {
                let (messages, error) = receive(&mut to, &piece);
                prop_assert_eq!(error, None);
                received.extend(messages);
            }
            prop_assert_eq!(received, messages);
            prop_assert!(to.frame.is_empty() && !to.swollen && !from.swollen);
        }

        /// What the peer can bring about does not depend on how its octets are cut, and never breaks anything.
        #[test]
        fn any_octets_mean_the_same_however_they_are_cut(
            frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
            noise in prop::collection::vec(any::<u8>(), 0..40),
            lengths in prop::collection::vec(1_usize..50, 1..6),
        ) {
            // Mostly of the kinds that there are.
            let kinds = [FINAL | BINARY, BINARY, CONTINUATION, FINAL | CONTINUATION, FINAL | PING, FINAL | CLOSE, FINAL | 10];
            let mut octets: Vec<u8> =
                frames.iter().flat_map(|(kind, payload)| frame(kinds[usize::from(*kind) % kinds.len()], payload)).collect();
            octets.extend(noise);
            let mut whole = WebSocket::server(MESSAGE_OCTETS_MAX);
            let expected = receive(&mut whole, &octets);
            let mut socket = WebSocket::server(MESSAGE_OCTETS_MAX);
            let (mut received, mut failed) = (Vec::new(), None);
            for piece in cut(&octets, &lengths) {
                let (messages, error) = receive(&mut socket, &piece);
                received.extend(messages);
                failed = failed.or(error);
            }
            prop_assert_eq!((received, failed), expected);
            prop_assert_eq!(socket.poll_transmit(), whole.poll_transmit());
        }
    }
}
