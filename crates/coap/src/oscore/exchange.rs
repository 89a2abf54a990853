//! Protecting and verifying messages (RFC 8613 8), with what ties a response to its request.
//!
//! ```text
//! client                                              server
//!   protect_request ──▶ SentRequest
//!                         │      ── POST/FETCH, OSCORE ──▶  unprotect_request ──▶ ReceivedRequest
//!                         │                                   │ (or the 4.01 with Echo, to be sent as it is)
//!   unprotect_response ◀──┘      ◀── 2.04/2.05, OSCORE ──   protect_response
//! ```
//!
//! Options (RFC 8613 figure 5): Uri-Host and Uri-Port stay outside, Proxy-Uri and Proxy-Scheme are refused, OSCORE is
//! ours; everything else goes inside, Block1 and Block2 as well. Observe goes inside and, for proxies, outside too. On
//! the way back what lies outside and should not is dropped, outer Block options of what was put together before too.

use super::context::{ContextTag, Replay, SecurityContext};
use super::error::OscoreError;
use super::keys::{IdContext, additional_data, nonce, open, seal};
use super::message::{Message, number, write_body};
use super::option::{OscoreOption, PartialIv};
use super::replay::ReplayWindow;
use crate::code::{Code, Kind};
use crate::frame::OptionReader;

/// A request that was protected, as long as a response to it may come. Keep it by the token.
#[derive(Debug)]
pub struct SentRequest {
    context: ContextTag,
    partial_iv: PartialIv,
    observes: bool,
    answers: Answers,
}

/// What has come to a request of ours.
#[derive(Debug)]
enum Answers {
    None,
    /// Notifications, with the highest Partial IV of them: the Notification Number of RFC 8613 4.1.3.5.2. None after a
    /// first one without; whatever has one comes after it.
    Notified(Option<u64>),
    /// The last one.
    Final,
}

impl SentRequest {
    /// Whether more responses may come.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self.answers, Answers::Final)
    }
}

/// A request that was verified, as long as it may be answered. Give it to
/// [`SecurityContext::protect_response`].
#[derive(Debug)]
pub struct ReceivedRequest {
    context: ContextTag,
    partial_iv: PartialIv,
    observes: bool,
    /// The request's nonce has not been used for a response.
    nonce_is_free: bool,
    ended: bool,
}

impl ReceivedRequest {
    /// Makes the next response carry a Partial IV of its own, as each after the first does anyway. For whoever may have
    /// answered this request before and does not know.
    pub fn require_partial_iv(&mut self) {
        self.nonce_is_free = false;
    }

    /// The same request, to be answered once more: its answer was protected and never sent, so its nonce is used up.
    pub(crate) const fn answered_anew(&self) -> Self {
        Self { nonce_is_free: false, ended: false, ..*self }
    }
}

/// A request of the peer that was verified.
#[derive(Debug)]
pub enum Verified {
    /// It is new.
    Request {
        /// As its sender wrote it.
        message: Message,
        /// For its answer.
        exchange: ReceivedRequest,
    },
    /// It may be old: the replay window was lost. Nothing is to be done but to send this answer, which is protected; a
    /// client that is alive repeats its request with the Echo option of it (RFC 8613 Appendix B.1.2).
    Unproven {
        /// 4.01 with Echo.
        answer: Message,
    },
}

impl SecurityContext {
    /// Protects a request.
    ///
    /// # Errors
    /// [`OscoreError::SequenceNotDurable`]: write, sync, and try again. [`OscoreError::SequenceExhausted`] ends the
    /// context. [`OscoreError::InvalidCode`], [`OscoreError::Nested`], [`OscoreError::ProxyNotSupported`],
    /// [`OscoreError::MessageTooLarge`] and [`OscoreError::TooManyOptions`] are the caller's; they use up no number.
    pub fn protect_request(&mut self, request: &Message) -> Result<(Message, SentRequest), OscoreError> {
        if request.code().kind() != Kind::Request {
            return Err(OscoreError::InvalidCode(request.code()));
        }
        let partial_iv = PartialIv::new(self.sequence.peek()?)?;
        let option = OscoreOption {
            partial_iv: Some(partial_iv.number()),
            kid_context: self.id_context.as_ref().map(IdContext::as_slice),
            kid: Some(self.sender.id.as_slice()),
        };
        let inner_observe = request.option(number::OBSERVE);
        let outer_observe = inner_observe.filter(|_| may_observe(request.code()));
        // RFC 8613 4.2, 4.1.3.5: POST with Observe is not defined.
        let outer_code = if outer_observe.is_some() { Code::FETCH } else { Code::POST };
        let split = Split::new(request, inner_observe, outer_observe)?;
        let nonce = nonce(&self.common_iv, &self.sender.id, &partial_iv);
        let additional = additional_data(&self.sender.id, &partial_iv);
        let mut text = split.plaintext(request);
        seal(&self.sender.key, &nonce, &additional, &mut text)?;
        let protected = split.outer(outer_code, &option, &text)?;
        self.sequence.advance();
        Ok((
            protected,
            SentRequest { context: self.tag(), partial_iv, observes: asks_to_observe(request), answers: Answers::None },
        ))
    }

    /// Verifies a request. [`OscoreOption::of`] says which context it wants.
    ///
    /// # Errors
    /// [`OscoreError::NotProtected`] if it has no OSCORE option. [`OscoreError::NotDecoded`],
    /// [`OscoreError::ContextNotFound`], [`OscoreError::Replay`], [`OscoreError::DecryptionFailed`] and
    /// [`OscoreError::PlaintextMalformed`] are to be answered with [`OscoreError::answer`].
    /// [`OscoreError::SequenceNotDurable`] and [`OscoreError::SequenceExhausted`] only where an Echo option would have to
    /// be sent.
    pub fn unprotect_request(&mut self, message: &Message) -> Result<Verified, OscoreError> {
        let (partial_iv, text) = self.open_request(message)?;
        // Only what was verified moves the window, and nothing that follows can undo it.
        let proven = self.note_request(partial_iv.number(), &text);
        let request = merge(message, &text, Kind::Request, None)?;
        let mut exchange = ReceivedRequest {
            context: self.tag(),
            partial_iv,
            observes: asks_to_observe(&request),
            nonce_is_free: true,
            ended: false,
        };
        if proven {
            return Ok(Verified::Request { message: request, exchange });
        }
        // RFC 8613 Appendix B.1.2: the request's nonce may have served its answer before the restart.
        exchange.require_partial_iv();
        let Replay::Recovering(echo) = self.replay else {
            return Err(OscoreError::Replay);
        };
        let challenge = Message::new(Code::UNAUTHORIZED, &[(number::ECHO, &echo.0)], &[])?;
        let answer = self.protect_response(&mut exchange, &challenge)?;
        Ok(Verified::Unproven { answer })
    }

    /// Whether [`SecurityContext::unprotect_request`] would take that request, which changes nothing: it was made with
    /// the peer's keys, and has not been seen.
    ///
    /// # Errors
    /// As [`SecurityContext::unprotect_request`].
    pub fn check_request(&self, message: &Message) -> Result<(), OscoreError> {
        self.open_request(message).map(|_| ())
    }

    /// The Partial IV and plaintext of a request that is new as far as is known.
    fn open_request(&self, message: &Message) -> Result<(PartialIv, Vec<u8>), OscoreError> {
        if message.code().kind() != Kind::Request {
            return Err(OscoreError::InvalidCode(message.code()));
        }
        let option = OscoreOption::of(message)?.ok_or(OscoreError::NotProtected { code: message.code() })?;
        let partial_iv = option.partial_iv.ok_or(OscoreError::NotDecoded("request without Partial IV"))?;
        if option.kid.is_none() {
            return Err(OscoreError::NotDecoded("request without kid"));
        }
        if !self.is_named_by(&option) {
            return Err(OscoreError::ContextNotFound);
        }
        let partial_iv = PartialIv::new(partial_iv)?;
        let nonce = nonce(&self.common_iv, &self.recipient.id, &partial_iv);
        let additional = additional_data(&self.recipient.id, &partial_iv);
        let text = open(&self.recipient.key, &nonce, &additional, message.payload())?;
        // Only now: what does not verify repeats nothing of the peer's, whatever its Partial IV.
        if let Replay::Window(window) = &self.replay
            && !window.is_new(partial_iv.number())
        {
            return Err(OscoreError::Replay);
        }
        Ok((partial_iv, text))
    }

    /// Protects a response. The first takes the request's nonce, unless it is a notification; all others carry a Partial
    /// IV. Observe is dropped where the request did not ask for it; a response without ends the exchange.
    ///
    /// # Errors
    /// As [`SecurityContext::protect_request`], and [`OscoreError::AlreadyAnswered`].
    pub fn protect_response(
        &mut self,
        exchange: &mut ReceivedRequest,
        response: &Message,
    ) -> Result<Message, OscoreError> {
        if response.code().kind() != Kind::Response {
            return Err(OscoreError::InvalidCode(response.code()));
        }
        if exchange.context != self.tag() {
            return Err(OscoreError::InvalidParameter("request of another context"));
        }
        if exchange.ended {
            return Err(OscoreError::AlreadyAnswered);
        }
        let observe = response.option(number::OBSERVE).filter(|_| exchange.observes);
        let outer_code = if observe.is_some() { Code::CONTENT } else { Code::CHANGED };
        // Inside it has no value (RFC 8613 4.1.3.5.2): the Partial IV gives the order.
        let split = Split::new(response, observe.map(|_| &[][..]), observe)?;
        let with_own = observe.is_some() || !exchange.nonce_is_free;
        let own = if with_own { Some(PartialIv::new(self.sequence.peek()?)?) } else { None };
        let nonce = match &own {
            Some(own) => nonce(&self.common_iv, &self.sender.id, own),
            None => nonce(&self.common_iv, &self.recipient.id, &exchange.partial_iv),
        };
        let option = OscoreOption { partial_iv: own.as_ref().map(PartialIv::number), kid_context: None, kid: None };
        let additional = additional_data(&self.recipient.id, &exchange.partial_iv);
        let mut text = split.plaintext(response);
        seal(&self.sender.key, &nonce, &additional, &mut text)?;
        let protected = split.outer(outer_code, &option, &text)?;
        if with_own {
            self.sequence.advance();
        }
        // Nor after a notification: the client wants each response to be newer than the last.
        exchange.nonce_is_free = false;
        exchange.ended = observe.is_none();
        Ok(protected)
    }

    /// Verifies a response to a request of ours. A notification's Observe option has the last three octets of its
    /// Partial IV as value (RFC 8613 4.1.3.5.2).
    ///
    /// # Errors
    /// [`OscoreError::NotProtected`]: an answer that nothing vouches for; act on it with care. All others: drop the
    /// message and wait on, it does not end the exchange.
    pub fn unprotect_response(&self, request: &mut SentRequest, message: &Message) -> Result<Message, OscoreError> {
        let (response, answers) = self.open_response(request, message)?;
        request.answers = answers;
        Ok(response)
    }

    /// Whether [`SecurityContext::unprotect_response`] would take that response, which changes nothing.
    ///
    /// # Errors
    /// As [`SecurityContext::unprotect_response`].
    pub fn check_response(&self, request: &SentRequest, message: &Message) -> Result<(), OscoreError> {
        self.open_response(request, message).map(|_| ())
    }

    /// The response, and what has come to its request with it.
    fn open_response(&self, request: &SentRequest, message: &Message) -> Result<(Message, Answers), OscoreError> {
        if message.code().kind() != Kind::Response {
            return Err(OscoreError::InvalidCode(message.code()));
        }
        if request.context != self.tag() {
            return Err(OscoreError::InvalidParameter("request of another context"));
        }
        let option = OscoreOption::of(message)?.ok_or(OscoreError::NotProtected { code: message.code() })?;
        if !self.is_named_by(&option) {
            return Err(OscoreError::ContextNotFound);
        }
        match (&request.answers, option.partial_iv) {
            (Answers::Final, _) => return Err(OscoreError::AlreadyAnswered),
            // RFC 8613 7.4.1, 8.4.2: each is newer than those before it, and only the first may do without.
            (Answers::Notified(highest), partial_iv) if partial_iv <= *highest => return Err(OscoreError::Replay),
            _ => {}
        }
        let own = option.partial_iv.map(PartialIv::new).transpose()?;
        let nonce = match &own {
            Some(own) => nonce(&self.common_iv, &self.recipient.id, own),
            None => nonce(&self.common_iv, &self.sender.id, &request.partial_iv),
        };
        let additional = additional_data(&self.sender.id, &request.partial_iv);
        let text = open(&self.recipient.key, &nonce, &additional, message.payload())?;
        let response = merge(message, &text, Kind::Response, own.as_ref())?;
        let notified = response.option(number::OBSERVE).is_some();
        if notified && !request.observes {
            return Err(OscoreError::UnexpectedObserve);
        }
        let answers = if notified { Answers::Notified(own.as_ref().map(PartialIv::number)) } else { Answers::Final };
        Ok((response, answers))
    }

    /// Notes a verified request; false if it may be old. `text` is its plaintext.
    fn note_request(&mut self, partial_iv: u64, text: &[u8]) -> bool {
        match &mut self.replay {
            Replay::Window(window) => window.take(partial_iv),
            Replay::Recovering(echo) => {
                if !echoes(text, &echo.0) {
                    return false;
                }
                self.replay = Replay::Window(ReplayWindow::above(partial_iv));
            }
        }
        true
    }
}

/// The options of a message, by where they go.
struct Split<'a> {
    inner: Vec<(u16, &'a [u8])>,
    outer: Vec<(u16, &'a [u8])>,
}

impl<'a> Split<'a> {
    fn new(
        message: &'a Message,
        inner_observe: Option<&'a [u8]>,
        outer_observe: Option<&'a [u8]>,
    ) -> Result<Self, OscoreError> {
        let (mut inner, mut outer) = (Vec::new(), Vec::new());
        // In the order of numbers, since Message::new sorts the outer ones only.
        for (number, value) in message.options() {
            match number {
                number::OSCORE => return Err(OscoreError::Nested),
                number::PROXY_URI | number::PROXY_SCHEME => return Err(OscoreError::ProxyNotSupported),
                number::URI_HOST | number::URI_PORT => outer.push((number, value)),
                number::OBSERVE => inner.extend(inner_observe.filter(|_| !has(&inner, number)).map(|v| (number, v))),
                _ => inner.push((number, value)),
            }
        }
        outer.extend(outer_observe.map(|value| (number::OBSERVE, value)));
        Ok(Self { inner, outer })
    }

    /// Code, options and payload as they are encrypted (RFC 8613 5.3).
    fn plaintext(&self, message: &Message) -> Vec<u8> {
        let mut text = vec![message.code().octet()];
        write_body(&mut text, &self.inner, message.payload());
        text
    }

    fn outer(mut self, code: Code, option: &OscoreOption<'_>, sealed: &[u8]) -> Result<Message, OscoreError> {
        let value = option.encode()?;
        let mut options = std::mem::take(&mut self.outer);
        options.push((number::OSCORE, &value));
        Message::new(code, &options, sealed)
    }
}

/// The message of its plaintext and of what may lie outside. A Partial IV is that of a notification.
fn merge(outer: &Message, text: &[u8], kind: Kind, partial_iv: Option<&PartialIv>) -> Result<Message, OscoreError> {
    let (&code, body) = text.split_first().ok_or(OscoreError::PlaintextMalformed("empty"))?;
    let code = Code::from_octet(code);
    if code.kind() != kind {
        return Err(OscoreError::PlaintextMalformed("code of another kind"));
    }
    let inner = Message::from_body(code, body)
        .map_err(|_| OscoreError::PlaintextMalformed("options cannot be read, or are too many or too long"))?;
    let mut options: Vec<(u16, &[u8])> = inner.options().collect();
    if has(&options, number::OSCORE) {
        return Err(OscoreError::PlaintextMalformed("protected twice"));
    }
    let order = partial_iv.map(|partial_iv| low_octets(partial_iv.octets()));
    for (number, value) in &mut options {
        if *number == number::OBSERVE {
            *value = order.unwrap_or(value);
        }
    }
    // RFC 8613 8.2 step 1 and 7: what is of class U stays, unless it came inside too.
    let kept = outer.options().filter(|(number, _)| {
        matches!(*number, number::URI_HOST | number::URI_PORT | number::PROXY_URI | number::PROXY_SCHEME)
            && !has(&options, *number)
    });
    let kept: Vec<_> = kept.collect();
    options.extend(kept);
    Message::new(code, &options, inner.payload())
}

fn has(options: &[(u16, &[u8])], number: u16) -> bool {
    options.iter().any(|(found, _)| *found == number)
}

/// The last three octets without zeros in front: what fits into an Observe option.
fn low_octets(partial_iv: &[u8]) -> &[u8] {
    let low = partial_iv.get(partial_iv.len().saturating_sub(3)..).unwrap_or_default();
    low.get(low.iter().take_while(|octet| **octet == 0).count()..).unwrap_or_default()
}

const fn may_observe(method: Code) -> bool {
    matches!(method, Code::GET | Code::FETCH)
}

/// Whether further responses are wanted: Observe 0 (RFC 7641 2).
fn asks_to_observe(request: &Message) -> bool {
    let register = |value: &[u8]| value.iter().all(|octet| *octet == 0);
    may_observe(request.code()) && request.option(number::OBSERVE).is_some_and(register)
}

/// Whether the plaintext of a request has that Echo option.
fn echoes(text: &[u8], echo: &[u8]) -> bool {
    let mut options = OptionReader::new(text.get(1..).unwrap_or_default());
    while let Ok(Some((number, value))) = options.next() {
        if number == number::ECHO {
            return value == echo;
        }
    }
    false
}
