//! The opening handshake (RFC 6455 clause 4, RFC 8323 clauses 4.1 and 8.3), both sides.

use std::io;

use thiserror::Error;
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::handshake::client::{self, generate_key, generate_request};
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{self, create_response, write_response};
use tungstenite::http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use tungstenite::http::{Response, StatusCode};
use tungstenite::{Error as LibraryError, http};

/// The resource that CoAP is at (RFC 8323 clause 8.3).
pub const WELL_KNOWN_PATH: &str = "/.well-known/coap";

/// The subprotocol that a client must ask for, and the server grants (RFC 8323 clause 4.1).
const SUBPROTOCOL: &str = "coap";

/// Why a request is not answered 101, and what it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UpgradeRefusal {
    /// It cannot be taken apart. 400.
    #[error("this is not a request of HTTP/1.1")]
    Malformed,
    /// It names no host, or several (RFC 9112 3.2). 400.
    #[error("a request has one Host field")]
    Host,
    /// `Sec-WebSocket-Key` is missing, or not 16 octets in base64. 400.
    #[error("Sec-WebSocket-Key must be 16 octets in base64")]
    Key,
    /// Subprotocol `coap` is not asked for. 400.
    #[error("ask for the subprotocol that is served here, by Sec-WebSocket-Protocol: coap")]
    Subprotocol,
    /// Something follows the request: a client has to wait for the answer (RFC 6455 4.1). 400.
    #[error("a client sends nothing between its request and the answer to it")]
    Early,
    /// Another resource. 404.
    #[error("there is one resource here, /.well-known/coap")]
    Path,
    /// Another method. 405.
    #[error("a WebSocket is opened by GET")]
    Method,
    /// The request did not come in time. 408.
    #[error("the request took too long")]
    TimedOut,
    /// No upgrade to WebSocket is asked for. 426.
    #[error("this resource speaks WebSocket: ask for it by Connection: Upgrade and Upgrade: websocket")]
    NoUpgrade,
    /// Another version of WebSocket than 13. 426.
    #[error("WebSocket is spoken in version 13")]
    Version,
    /// The request is longer than is taken. 431.
    #[error("the request is too long")]
    TooLarge,
    /// HTTP before 1.1. 505.
    #[error("HTTP is spoken in version 1.1")]
    HttpVersion,
}

impl UpgradeRefusal {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status_code().as_u16()
    }

    fn status_code(self) -> StatusCode {
        match self {
            Self::Malformed | Self::Host | Self::Key | Self::Subprotocol | Self::Early => StatusCode::BAD_REQUEST,
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::NoUpgrade | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HttpVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    /// The whole answer: its status, what to do instead as text, and that the connection ends.
    #[must_use]
    pub fn response(&self) -> Vec<u8> {
        let text = format!("{self}\n");
        let mut response = Response::new(());
        *response.status_mut() = self.status_code();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        match self {
            Self::NoUpgrade | Self::Version => {
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade, close"));
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            _ => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        if matches!(self, Self::Method) {
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        let mut octets = Vec::new();
        // Every field is one of the texts above, which all can be written.
        let _ = write_response(&mut octets, &response);
        octets.extend_from_slice(text.as_bytes());
        octets
    }
}

/// The handshake of the side that is connected to.
#[derive(Debug)]
pub struct ServerOpening {
    received: Vec<u8>,
    request_octets_max: usize,
}

impl ServerOpening {
    /// Takes a request of at most so many octets.
    #[must_use]
    pub fn new(request_octets_max: usize) -> Self {
        Self { received: Vec::new(), request_octets_max }
    }

    /// Takes octets; once the request is whole, the answer to send before the first frame.
    ///
    /// # Errors
    /// [`UpgradeRefusal`]: send [`UpgradeRefusal::response`] and close.
    pub fn receive(&mut self, octets: &[u8]) -> Result<Option<Vec<u8>>, UpgradeRefusal> {
        let end = append(&mut self.received, octets, self.request_octets_max).ok_or(UpgradeRefusal::TooLarge)?;
        let Some(end) = end else { return Ok(None) };
        let head = self.received.get(..end).unwrap_or_default();
        let (_, request) = server::Request::try_parse(head).map_err(refusal)?.ok_or(UpgradeRefusal::Malformed)?;
        if request.uri().path() != WELL_KNOWN_PATH {
            return Err(UpgradeRefusal::Path);
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        if hosts.next().is_none() || hosts.next().is_some() {
            return Err(UpgradeRefusal::Host);
        }
        let mut response = create_response(&request).map_err(refusal)?;
        if !names(request.headers(), &SEC_WEBSOCKET_PROTOCOL, |protocol| protocol == SUBPROTOCOL) {
            return Err(UpgradeRefusal::Subprotocol);
        }
        if self.received.len() > end {
            return Err(UpgradeRefusal::Early);
        }
        self.received = Vec::new();
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let mut answer = Vec::new();
        write_response(&mut answer, &response).map_err(refusal)?;
        Ok(Some(answer))
    }
}

fn refusal(error: LibraryError) -> UpgradeRefusal {
    match error {
        LibraryError::Capacity(CapacityError::TooManyHeaders) => UpgradeRefusal::TooLarge,
        LibraryError::Protocol(error) => match error {
            ProtocolError::WrongHttpMethod => UpgradeRefusal::Method,
            ProtocolError::WrongHttpVersion => UpgradeRefusal::HttpVersion,
            ProtocolError::MissingConnectionUpgradeHeader | ProtocolError::MissingUpgradeWebSocketHeader => {
                UpgradeRefusal::NoUpgrade
            }
            ProtocolError::MissingSecWebSocketVersionHeader => UpgradeRefusal::Version,
            ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey => UpgradeRefusal::Key,
            _ => UpgradeRefusal::Malformed,
        },
        _ => UpgradeRefusal::Malformed,
    }
}

/// Why a client has no WebSocket.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The server answered with another status than 101. `reason` is what it said, in ASCII, cut to 200 octets.
    #[error("the server does not open a WebSocket: {status} {reason}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The text of the answer.
        reason: String,
    },
    /// The answer is not one of HTTP/1.1, or not what RFC 6455 4.1 and RFC 8323 4.1 demand: whoever answers speaks another
    /// protocol.
    #[error("the answer opens no WebSocket: {0}")]
    Answer(&'static str),
    /// The request cannot be written; most likely the server's name has no place in a `Host` field.
    #[error("no request can be made")]
    Request,
    /// The server closed the connection.
    #[error("the connection was closed before there was a WebSocket")]
    Closed,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

/// The handshake of the side that connects.
#[derive(Debug)]
pub struct ClientOpening {
    accept_key: String,
    received: Vec<u8>,
}

impl ClientOpening {
    /// Asks `authority` (host, and port unless it is 443) for CoAP; the octets to send first.
    ///
    /// # Errors
    /// [`UpgradeError::Request`].
    pub fn new(authority: &str) -> Result<(Self, Vec<u8>), UpgradeError> {
        let request = http::Request::builder()
            .uri(WELL_KNOWN_PATH)
            .header(HOST, authority)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, generate_key())
            .header(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
            .body(())
            .map_err(|_| UpgradeError::Request)?;
        let (octets, key) = generate_request(request).map_err(|_| UpgradeError::Request)?;
        Ok((Self { accept_key: derive_accept_key(key.as_bytes()), received: Vec::new() }, octets))
    }

    /// Takes octets; once the answer is whole and what it must be, the octets that followed it: frames already.
    ///
    /// # Errors
    /// [`UpgradeError`]: close.
    pub fn receive(&mut self, octets: &[u8]) -> Result<Option<Vec<u8>>, UpgradeError> {
        let end =
            append(&mut self.received, octets, ANSWER_OCTETS_MAX).ok_or(UpgradeError::Answer("it is too long"))?;
        let Some(end) = end else { return Ok(None) };
        let (head, rest) = self.received.split_at_checked(end).unwrap_or_default();
        let (_, response) =
            client::Response::try_parse(head).ok().flatten().ok_or(UpgradeError::Answer("it is not of HTTP/1.1"))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(UpgradeError::Refused { status: response.status().as_u16(), reason: printable(rest) });
        }
        let headers = response.headers();
        if !names(headers, &UPGRADE, |name| name.eq_ignore_ascii_case("websocket"))
            || !names(headers, &CONNECTION, |name| name.eq_ignore_ascii_case("upgrade"))
        {
            return Err(UpgradeError::Answer("it upgrades to something else"));
        }
        if headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|key| key.as_bytes() != self.accept_key.as_bytes()) {
            return Err(UpgradeError::Answer("it is to another request"));
        }
        if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
            return Err(UpgradeError::Answer("it grants an extension that was not asked for"));
        }
        let mut protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        if protocols.next().is_none_or(|protocol| protocol.as_bytes() != SUBPROTOCOL.as_bytes())
            || protocols.next().is_some()
        {
            return Err(UpgradeError::Answer("it does not grant the subprotocol coap"));
        }
        Ok(Some(rest.to_vec()))
    }
}

/// Adds to the head of a request or answer; where it ends (RFC 9112 2.1), once it does. `None` if it is too long.
#[allow(clippy::option_option)]
fn append(received: &mut Vec<u8>, octets: &[u8], octets_max: usize) -> Option<Option<usize>> {
    // The end may lie across what came before and what comes now.
    let from = received.len().saturating_sub(END.len() - 1);
    received.extend_from_slice(octets);
    let news = received.get(from..).unwrap_or_default();
    let end = news.windows(END.len()).position(|window| window == END).map(|at| from + at + END.len());
    (end.unwrap_or(received.len()) <= octets_max).then_some(end)
}

/// Whether a field has an element in its list, over all its lines (RFC 9110 5.6.1).
fn names(headers: &HeaderMap, field: &HeaderName, is_it: impl Fn(&str) -> bool) -> bool {
    let values = headers.get_all(field).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|name| is_it(name.trim()))
}

/// What a server said, fit for a log.
fn printable(text: &[u8]) -> String {
    let text = text.iter().take(REASON_OCTETS_MAX).map(|octet| char::from(*octet));
    text.map(|octet| if octet.is_ascii_graphic() || octet == ' ' { octet } else { ' ' })
        .collect::<String>()
        .trim()
        .into()
}

const END: &[u8] = b"\r\n\r\n";

/// The head of a server's answer.
const ANSWER_OCTETS_MAX: usize = 8_192;

const REASON_OCTETS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const REQUEST_OCTETS_MAX: usize = 4_096;

    /// RFC 8323 4.1, figure 8, with the key of RFC 6455 1.3.
    const REQUEST: &str = "GET /.well-known/coap HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\n\
                           Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                           Sec-WebSocket-Protocol: coap\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn asked(request: &str) -> Result<Option<Vec<u8>>, UpgradeRefusal> {
        ServerOpening::new(REQUEST_OCTETS_MAX).receive(request.as_bytes())
    }

    #[test]
    fn the_request_of_rfc_8323_is_granted_as_it_says() {
        let answer = String::from_utf8(asked(REQUEST).unwrap().unwrap()).unwrap().to_lowercase();
        assert!(answer.starts_with("http/1.1 101 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        for field in [
            "upgrade: websocket",
            "connection: upgrade",
            "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
            "sec-websocket-protocol: coap",
        ] {
            assert!(answer.contains(&format!("\r\n{field}\r\n")), "{field}: {answer}");
        }
        assert!(!answer.contains("extensions"), "{answer}");
    }

    #[test]
    fn one_of_several_subprotocols_and_no_extension_is_taken() {
        let request =
            REQUEST.replace("Protocol: coap", "Protocol: mqtt, coap\r\nSec-WebSocket-Extensions: permessage-deflate");
        let answer = String::from_utf8(asked(&request).unwrap().unwrap()).unwrap().to_lowercase();
        assert!(answer.contains("sec-websocket-protocol: coap\r\n") && !answer.contains("deflate"), "{answer}");
    }

    #[test]
    fn whatever_is_wrong_with_a_request_has_its_status_and_says_what_to_do() {
        let long = format!("X: {}\r\nHost:", "x".repeat(REQUEST_OCTETS_MAX));
        for (what, with, refusal, status) in [
            ("/.well-known/coap ", "/ ", UpgradeRefusal::Path, 404),
            ("/.well-known/coap ", "/.well-known/coap/x ", UpgradeRefusal::Path, 404),
            ("GET", "POST", UpgradeRefusal::Method, 405),
            ("HTTP/1.1", "HTTP/1.0", UpgradeRefusal::HttpVersion, 505),
            ("HTTP/1.1", "SIP/2.0", UpgradeRefusal::Malformed, 400),
            ("Host: example.org\r\n", "", UpgradeRefusal::Host, 400),
            ("Host: example.org\r\n", "Host: a\r\nHost: b\r\n", UpgradeRefusal::Host, 400),
            ("Upgrade: websocket\r\n", "", UpgradeRefusal::NoUpgrade, 426),
            ("Upgrade: websocket\r\n", "Upgrade: h2c\r\n", UpgradeRefusal::NoUpgrade, 426),
            ("Connection: Upgrade\r\n", "", UpgradeRefusal::NoUpgrade, 426),
            ("Version: 13", "Version: 8", UpgradeRefusal::Version, 426),
            ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", UpgradeRefusal::Key, 400),
            ("Sec-WebSocket-Protocol: coap\r\n", "", UpgradeRefusal::Subprotocol, 400),
            ("Protocol: coap", "Protocol: COAP, coap2", UpgradeRefusal::Subprotocol, 400),
            ("\r\n\r\n", "\r\n\r\nx", UpgradeRefusal::Early, 400),
            ("Host:", &long, UpgradeRefusal::TooLarge, 431),
        ] {
            assert_eq!(asked(&REQUEST.replace(what, with)), Err(refusal), "{what} -> {with}");
            let answer = String::from_utf8(refusal.response()).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            let (head, text) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!(text, format!("{refusal}\n"));
            let head = head.to_lowercase();
            assert!(head.contains(&format!("content-length: {}", text.len())) && head.contains("close"), "{head}");
            assert_eq!(head.contains("upgrade: websocket"), status == 426, "{head}");
            assert_eq!(head.contains("sec-websocket-version: 13"), status == 426, "{head}");
            assert_eq!(head.contains("allow: get"), status == 405, "{head}");
        }
    }

    #[test]
    fn a_request_without_end_is_refused_at_the_limit() {
        let mut opening = ServerOpening::new(REQUEST_OCTETS_MAX);
        for _ in 0..REQUEST_OCTETS_MAX / 16 {
            assert_eq!(opening.receive(b"GET / HTTP/1.1 ,"), Ok(None));
        }
        assert_eq!(opening.receive(b"x"), Err(UpgradeRefusal::TooLarge));
    }

    #[test]
    fn both_sides_agree_and_frames_may_follow_the_answer() {
        let (mut client, request) = ClientOpening::new("msgin5g.lab.example:8443").unwrap();
        let request = String::from_utf8(request).unwrap();
        assert!(request.contains("Host: msgin5g.lab.example:8443\r\n"), "{request}");
        let mut answer = asked(&request).unwrap().unwrap();
        answer.extend_from_slice(b"\x82\x02\x00\xe1");
        let (first, last) = answer.split_at(30);
        assert!(client.receive(first).unwrap().is_none());
        assert_eq!(client.receive(last).unwrap().unwrap(), b"\x82\x02\x00\xe1");
        assert!(matches!(ClientOpening::new("no\nhost"), Err(UpgradeError::Request)));
    }

    #[test]
    fn a_client_takes_no_other_answer() {
        let grant = |with: fn(String) -> String| {
            let (mut client, request) = ClientOpening::new("example.org").unwrap();
            let answer = asked(&String::from_utf8(request).unwrap()).unwrap().unwrap();
            client.receive(with(String::from_utf8(answer).unwrap()).as_bytes())
        };
        assert!(grant(|answer| answer).unwrap().is_some());
        let others: [fn(String) -> String; 7] = [
            |answer| answer.replace("protocol: coap", "protocol: mqtt"),
            |answer| answer.replace("sec-websocket-protocol: coap\r\n", ""),
            |answer| answer.replace("\r\n\r\n", "\r\nsec-websocket-protocol: coap\r\n\r\n"),
            |answer| answer.replace("accept: ", "accept: x"),
            |answer| answer.replace("\r\n\r\n", "\r\nsec-websocket-extensions: permessage-deflate\r\n\r\n"),
            |answer| answer.replace("upgrade: websocket", "upgrade: h2c"),
            |_| "\u{1}\u{2}coap\r\n\r\n".to_owned(),
        ];
        for (number, other) in others.into_iter().enumerate() {
            let answered = grant(other);
            assert!(matches!(answered, Err(UpgradeError::Answer(_))), "{number}: {answered:?}");
        }
        let (mut client, _) = ClientOpening::new("example.org").unwrap();
        let refused = client.receive(&UpgradeRefusal::Subprotocol.response()).unwrap_err();
        let UpgradeError::Refused { status, reason } = refused else { panic!("{refused}") };
        assert_eq!((status, reason), (400, UpgradeRefusal::Subprotocol.to_string()));
        let (mut client, _) = ClientOpening::new("example.org").unwrap();
        let refused = client.receive(b"HTTP/1.1 503 no\r\n\r\nno\x1b[31m\r\nway").unwrap_err();
        assert_eq!(refused.to_string(), "the server does not open a WebSocket: 503 no [31m  way");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_request_is_answered_the_same_however_it_is_cut(lengths in prop::collection::vec(1_usize..40, 1..5)) {
            let whole = asked(REQUEST);
            let mut opening = ServerOpening::new(REQUEST_OCTETS_MAX);
            let mut rest = REQUEST.as_bytes();
            let mut answer = Ok(None);
            for length in lengths.iter().cycle() {
                let (piece, after) = rest.split_at((*length).min(rest.len()));
                prop_assert_eq!(&answer, &Ok(None));
                answer = opening.receive(piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(answer, whole);
        }

        #[test]
        fn no_octets_break_either_side(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let octets = [&octets[..], b"\r\n\r\n"].concat();
            let _ = ServerOpening::new(100).receive(&octets);
            let (mut client, _) = ClientOpening::new("example.org").unwrap();
            let _ = client.receive(&octets);
        }
    }
}
