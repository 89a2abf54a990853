//! A peer that says exactly what a test wants it to say: messages put together by hand, after RFC 8323 3.2.
#![allow(dead_code)] // each test binary uses what it needs

use coap::{Code, StreamConfig, StreamConnection, StreamEvent};

/// One message; `body` is options, marker and payload as they go over the wire, of at most 268 octets.
pub(crate) fn message(code: Code, token: &[u8], body: &[u8]) -> Vec<u8> {
    let token_length = token.len() as u8;
    let mut out = match body.len() {
        length @ 0..=12 => vec![(length as u8) << 4 | token_length],
        length => vec![13 << 4 | token_length, (length - 13) as u8],
    };
    out.push(code.octet());
    out.extend_from_slice(token);
    out.extend_from_slice(body);
    out
}

/// A CSM without options.
pub(crate) fn csm() -> Vec<u8> {
    message(Code::CSM, &[], &[])
}

/// POST to `msgin5g`.
pub(crate) fn post(token: &[u8]) -> Vec<u8> {
    message(Code::POST, token, b"\xb7msgin5g")
}

/// A connection whose peer has sent its CSM; nothing waits.
pub(crate) fn open(config: StreamConfig) -> StreamConnection {
    let mut connection = StreamConnection::new(config);
    connection.receive(&csm()).unwrap();
    assert!(matches!(connection.poll_event(), Some(StreamEvent::PeerReady { .. })));
    connection.poll_transmit().unwrap();
    connection
}

/// A message as it went out: code, token, options and payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) code: Code,
    pub(crate) token: Vec<u8>,
    pub(crate) options: Vec<(u16, Vec<u8>)>,
    pub(crate) payload: Vec<u8>,
}

/// Everything that waits to be sent, taken apart by a reader of its own.
pub(crate) fn sent(connection: &mut StreamConnection) -> Vec<Sent> {
    let octets = connection.poll_transmit().unwrap_or_default();
    let mut rest = octets.as_slice();
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (extended, length) = match rest[0] >> 4 {
            13 => (1, 13 + usize::from(rest[1])),
            14 => (2, 269 + usize::from(u16::from_be_bytes([rest[1], rest[2]]))),
            15 => (4, 65_805 + u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize),
            length => (0, usize::from(length)),
        };
        let token_length = usize::from(rest[0] & 0x0f);
        let code = Code::from_octet(rest[1 + extended]);
        let token = rest[2 + extended..][..token_length].to_vec();
        let (body, tail) = rest[2 + extended + token_length..].split_at(length);
        rest = tail;
        let (options, payload) = body_of(body);
        messages.push(Sent { code, token, options, payload });
    }
    messages
}

fn body_of(mut body: &[u8]) -> (Vec<(u16, Vec<u8>)>, Vec<u8>) {
    let (mut options, mut number) = (Vec::new(), 0);
    while let [first, rest @ ..] = body {
        if *first == 0xff {
            return (options, rest.to_vec());
        }
        let mut rest = rest;
        let mut extend = |nibble: u8| match nibble {
            13 => {
                let value = 13 + u16::from(rest[0]);
                rest = &rest[1..];
                value
            }
            14 => {
                let value = 269 + u16::from_be_bytes([rest[0], rest[1]]);
                rest = &rest[2..];
                value
            }
            nibble => u16::from(nibble),
        };
        number += extend(first >> 4);
        let length = usize::from(extend(first & 0x0f));
        options.push((number, rest[..length].to_vec()));
        body = &rest[length..];
    }
    (options, Vec::new())
}

/// All events that wait.
pub(crate) fn events(connection: &mut StreamConnection) -> Vec<StreamEvent> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}
