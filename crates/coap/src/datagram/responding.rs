//! The peer's requests, from the datagram to our response: blocks in, blocks out, Echo, No-Response (RFC 7252 5.2,
//! RFC 7959, RFC 9175, RFC 7967).
//!
//! ```text
//! request ──> Block1? ── more to come ──> 2.31          (or 4.08, 4.13)
//!    │          └ last, or none ─┐
//!    │                           ▼
//!    ├── Block2 > 0, kept ──> that block of the response
//!    ▼                           
//!   event ──> response ──> fits? ── yes ──> sent
//!                           └ no ──> kept; its first block sent
//! ```

use std::time::Instant;

use super::address::AMPLIFICATION_MAX;
use super::deduplication::Outcome;
use super::reliability::Purpose;
use super::wire::{self, Datagram, HEADER_OCTETS, Type, merged};
use super::{DatagramConnection, count};
use crate::block::{
    Assembled, Block, BlockSize, Bounds, ETAG_OCTETS, Extras, Uint, download_key, etag, is_countable, number,
    repetition_key, upload_key,
};
use crate::code::{Code, Kind};
use crate::error::ConnectionError;
use crate::event::ConnectionEvent;
use crate::frame::{OptionReader, OptionWriter, Token};
use crate::limits::TOO_MANY_REQUESTS_MAX_AGE_SECONDS;
use crate::message::{self, ExchangeId, Observe, Refusal, Request, Response};

/// What the options that are added to a response for block-wise transfer and Observe take at most.
const BLOCK_OPTIONS_OCTETS: usize = 32;

/// A request of the peer that waits for its answer.
#[derive(Debug)]
pub(super) struct PeerRequest {
    exchange: ExchangeId,
    token: Token,
    message_id: u16,
    confirmable: bool,
    /// When an empty acknowledgement goes first; none if it has, or none is wanted.
    acknowledge_at: Option<Instant>,
    observe: bool,
    block1: Option<Block>,
    block2: Option<Block>,
    key: Box<[u8]>,
    tag: Option<Box<[u8]>>,
    /// What a repetition of it looks like; only while the peer's address is not proven.
    repetition: Option<Box<[u8]>>,
    /// Of the datagram that it came in, the last if there were more.
    octets: usize,
    /// What it counts for in `requests_octets_max`.
    octets_held: usize,
    no_response: u8,
}

impl PeerRequest {
    pub(super) fn acknowledge_at(&self) -> Option<Instant> {
        self.acknowledge_at
    }

    /// How its response goes: along with the acknowledgement, or in a message of its own.
    fn response_type(&self) -> Type {
        match (self.confirmable, self.acknowledge_at) {
            (true, Some(_)) => Type::Acknowledgement,
            (true, None) => Type::Confirmable,
            (false, _) => Type::NonConfirmable,
        }
    }

    fn reply(&self) -> ReplyTo {
        ReplyTo { token: self.token, block1: self.block1, block2: self.block2, size: None, etag: None }
    }
}

/// A response that waits until the peer's address is proven.
#[derive(Debug)]
pub(super) struct Held {
    repetition: Box<[u8]>,
    exchange: ExchangeId,
    response: Response,
    expires: Instant,
}

impl Held {
    pub(super) fn expires(&self) -> Instant {
        self.expires
    }

    fn octets(&self) -> usize {
        self.repetition.len() + self.response.payload.len()
    }
}

/// What a response depends on besides itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyTo {
    pub(super) token: Token,
    pub(super) block1: Option<Block>,
    /// The block that is asked for.
    pub(super) block2: Option<Block>,
    /// The largest block that the peer wants, where the request does not say.
    pub(super) size: Option<BlockSize>,
    /// The ETag of the response, if it has been computed before.
    pub(super) etag: Option<[u8; ETAG_OCTETS]>,
}

/// A response as it goes out: options, and which part of the payload.
#[derive(Debug)]
pub(super) struct Composed {
    pub(super) code: Code,
    pub(super) options: Vec<u8>,
    /// The block, if the payload goes in blocks.
    block: Option<Block>,
    /// Further blocks follow.
    pub(super) more: bool,
    /// There is no such block.
    out_of_range: bool,
}

impl Composed {
    pub(super) fn payload<'r>(&self, response: &'r Response) -> &'r [u8] {
        match self.block {
            _ if self.out_of_range => &[],
            Some(block) => block.slice(&response.payload),
            None => &response.payload,
        }
    }
}

impl DatagramConnection {
    /// A request that is no copy of an earlier one.
    pub(super) fn take_request(&mut self, datagram: &Datagram<'_>, now: Instant) {
        let frame = &datagram.frame;
        let exchange = ExchangeId(self.next_exchange);
        let read = message::read_request(frame, exchange, self.config.limits.options_max, self.served());
        let mut request = match read {
            Err(_) => return self.reject(datagram),
            Ok(Err(refusal)) => return self.refuse(datagram, refusal, None),
            Ok(Ok(request)) => request,
        };
        let extras = match Extras::read(frame) {
            Err(refusal) => return self.refuse(datagram, refusal, None),
            Ok(extras) => extras,
        };
        self.take_echo(extras.echo);
        if self.answer_held(datagram, &extras, now) {
            return;
        }
        if let Some(block) = extras.block1 {
            match self.assemble(datagram, &extras, block, &request.payload, now) {
                Some(body) => request.payload = body,
                None => return,
            }
        } else if request.payload.len() > self.config.max_message_size_own as usize {
            return self.refuse_too_large(datagram, None);
        } else if !self.make_room(&[], datagram.octets) {
            return self.refuse_for_now(datagram);
        }
        if extras.block2.is_some_and(|block| block.number > 0) && self.answer_block(datagram, &extras, now) {
            return;
        }
        let active = self.active();
        let outstanding = active.peer_requests.len() + active.sending.unacknowledged_responses();
        if outstanding >= self.config.limits.peer_requests_outstanding_max {
            return self.refuse_for_now(datagram);
        }
        self.next_exchange += 1;
        self.end_observation_with_token(frame.token);
        self.await_application(datagram, &extras, &request, now);
        self.push_event(ConnectionEvent::Request { request });
    }

    /// Enters a request that is handed over.
    fn await_application(&mut self, datagram: &Datagram<'_>, extras: &Extras<'_>, request: &Request, now: Instant) {
        let confirmable = datagram.kind == Type::Confirmable;
        let wait = self.config.transmission.piggyback_wait;
        let key = download_key(&datagram.frame);
        let repetition = self.unproven.is_some().then(|| repetition_key(&datagram.frame));
        let tag: Option<Box<[u8]>> = extras.tag.map(Box::from);
        let keys = key.len() + tag.as_ref().map_or(0, |tag| tag.len());
        let octets_held = request.payload.len() + keys + repetition.as_ref().map_or(0, |key| key.len());
        self.active().peer_requests.push(PeerRequest {
            exchange: request.exchange,
            token: datagram.frame.token,
            message_id: datagram.message_id,
            confirmable,
            acknowledge_at: confirmable.then_some(now + wait),
            observe: request.observe == Some(Observe::Register),
            block1: extras.block1,
            block2: extras.block2,
            key,
            tag,
            repetition,
            octets: datagram.octets,
            octets_held,
            no_response: extras.no_response,
        });
    }

    /// Whether so many octets more of the peer's requests are within the limit, once those that it has not completed, but
    /// for that with `key`, have made room. A request is taken if there is nothing besides.
    fn make_room(&mut self, key: &[u8], octets: usize) -> bool {
        let octets_max = self.config.limits.requests_octets_max;
        let active = self.active();
        let handed_over = active.peer_requests.iter().map(|request| request.octets_held).sum();
        active.assemblies.make_room(key, octets, handed_over, octets_max)
    }

    /// Takes a block of a request; the whole body once it is complete.
    fn assemble(
        &mut self,
        datagram: &Datagram<'_>,
        extras: &Extras<'_>,
        block: Block,
        payload: &[u8],
        now: Instant,
    ) -> Option<Vec<u8>> {
        let limits = &self.config.limits;
        let bounds = Bounds {
            entries_max: limits.assemblies_max,
            octets_max: self.config.max_message_size_own as usize,
            expires: now + self.config.transmission.exchange_lifetime(),
        };
        let size = block.size.min(BlockSize::at_most(limits.block_octets_max.into()));
        let key = upload_key(&datagram.frame);
        let follows = block.number == 0 || self.active().assemblies.has(&key);
        if follows && !self.make_room(&key, datagram.octets) {
            self.refuse_for_now(datagram);
            return None;
        }
        match self.active().assemblies.take(key, block, payload, extras.size1, &bounds) {
            Assembled::Complete(body) => return Some(body),
            Assembled::Continue => {
                // RFC 7959 2.3: the number is the peer's, the size what we would like from now on.
                let block = Block { size, ..block };
                self.answer(datagram, &Response::new(Code::CONTINUE), &[(number::BLOCK1, block.encode().as_slice())]);
            }
            Assembled::Refused(refusal) if refusal.code == Code::REQUEST_ENTITY_TOO_LARGE => {
                self.refuse_too_large(datagram, Some(block));
            }
            Assembled::Refused(refusal) => self.refuse(datagram, refusal, Some(block)),
        }
        None
    }

    /// Answers for a response that is kept, or says that there is none. False if the application is to be asked: a GET or
    /// FETCH may begin anywhere.
    fn answer_block(&mut self, datagram: &Datagram<'_>, extras: &Extras<'_>, now: Instant) -> bool {
        const LOST: Refusal =
            Refusal { code: Code::REQUEST_ENTITY_INCOMPLETE, diagnostic: "that response is no longer here" };
        let expires = now + self.config.transmission.exchange_lifetime();
        let key = download_key(&datagram.frame);
        let Some(kept) = self.active().kept.find(&key, extras.tag, expires) else {
            if matches!(datagram.frame.code, Code::GET | Code::FETCH) {
                return false;
            }
            self.refuse(datagram, LOST, None);
            return true;
        };
        let (response, etag) = (kept.response.clone(), Some(kept.etag));
        let reply = ReplyTo { token: datagram.frame.token, block1: None, block2: extras.block2, size: None, etag };
        // It was within the limits when its first block went out.
        let Ok(composed) = self.compose(&reply, &response, None) else { return true };
        let payload = composed.payload(&response);
        let octets = octets_of(datagram.frame.token, &composed.options, payload);
        if let Some(echo) = self.challenge(datagram.octets, octets) {
            self.answer(datagram, &Response::new(Code::UNAUTHORIZED), &[(number::ECHO, &echo)]);
            return true;
        }
        if !composed.more && !composed.out_of_range {
            self.active().kept.forget(&key, extras.tag);
        }
        self.answer_composed(datagram, &composed, payload);
        true
    }

    /// Answers a request that is repeated because its response is held back. The application is not asked again.
    fn answer_held(&mut self, datagram: &Datagram<'_>, extras: &Extras<'_>, now: Instant) -> bool {
        let Some(active) = self.active.as_mut().filter(|active| !active.held.is_empty()) else { return false };
        let repetition = repetition_key(&datagram.frame);
        let Some(place) = active.held.iter().position(|held| held.repetition == repetition) else { return false };
        let held = active.held.remove(place);
        let request = match message::read_request(
            &datagram.frame,
            held.exchange,
            self.config.limits.options_max,
            self.served(),
        ) {
            Ok(Ok(request)) => request,
            _ => return false,
        };
        self.end_observation_with_token(datagram.frame.token);
        self.await_application(datagram, extras, &request, now);
        // It was within the limits the first time.
        let _ = self.answer_request(held.exchange, &held.response, now);
        true
    }

    /// The application's answer.
    pub(super) fn answer_request(
        &mut self,
        exchange: ExchangeId,
        response: &Response,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        if response.code.kind() != Kind::Response {
            return Err(ConnectionError::InvalidCode(response.code));
        }
        let requests = self.active.as_ref().map_or(&[][..], |active| &active.peer_requests);
        let place = requests.iter().position(|request| request.exchange == exchange);
        let request = place.and_then(|place| requests.get(place)).ok_or(ConnectionError::UnknownExchange)?;
        let observed = request.observe
            && response.observe
            && response.code.is_success()
            && self.has_room_for_observation(request.token);
        let composed = self.compose(&request.reply(), response, observed.then_some(FIRST_NUMBER))?;
        let request = self.active().peer_requests.swap_remove(place.unwrap_or_default());
        if Extras::suppresses(request.no_response, response.code) && !observed {
            self.acknowledge_request(&request);
            return Ok(());
        }
        let payload = composed.payload(response);
        let octets = octets_of(request.token, &composed.options, payload);
        let times = match request.response_type() {
            Type::Confirmable => 1 + usize::from(self.config.transmission.max_retransmit),
            _ => 1,
        };
        if let Some(echo) = self.challenge(request.octets, octets.saturating_mul(times)) {
            self.hold(request, response, echo, now);
            return Ok(());
        }
        self.send_response(&request, composed.code, &composed.options, payload);
        let size = request.block2.map(|block| block.size);
        if composed.more {
            self.keep_response(request.key.clone(), request.tag, response, now);
        }
        if observed {
            self.observed_by_peer(exchange, request.token, FIRST_NUMBER, request.key, size);
        }
        Ok(())
    }

    /// What the peer is to repeat before it gets so many octets, all transmissions counted, for so small a request.
    fn challenge(&self, request_octets: usize, octets: usize) -> Option<[u8; super::ECHO_OCTETS]> {
        let echo = self.unproven.as_ref().map(|unproven| unproven.echo);
        echo.filter(|_| octets > AMPLIFICATION_MAX * request_octets)
    }

    /// The response in the form that goes along with the acknowledgement, or after it.
    fn send_response(&mut self, request: &PeerRequest, code: Code, options: &[u8], payload: &[u8]) {
        let kind = request.response_type();
        let datagram = wire::write(kind, request.message_id, code, &request.token, options, payload);
        match kind {
            Type::Acknowledgement => {
                self.remember(request.message_id, Outcome::Answered(datagram.as_slice().into()));
                self.transmit(datagram);
            }
            Type::NonConfirmable => self.send_unacknowledged(datagram),
            _ => self.active().sending.enqueue(datagram, Purpose::Response, true),
        }
    }

    /// Keeps the response back and asks the peer to prove where it is.
    fn hold(&mut self, mut request: PeerRequest, response: &Response, echo: [u8; super::ECHO_OCTETS], now: Instant) {
        let entries_max = self.config.limits.responses_held_max.max(1);
        let octets_max = self.config.limits.responses_octets_max;
        let expires = now + self.config.transmission.exchange_lifetime();
        // A confirmable one would be sent again and again to whoever is there.
        request.confirmable = request.acknowledge_at.is_some();
        let challenge = merged(OptionReader::new(&[]), &[], &[(number::ECHO, &echo)]);
        self.send_response(&request, Code::UNAUTHORIZED, &challenge, &[]);
        if let Some(repetition) = request.repetition.take() {
            let active = self.active();
            if active.held.len() >= entries_max {
                active.held.remove(0);
            }
            active.held.push(Held { repetition, exchange: request.exchange, response: response.clone(), expires });
            while active.held.len() > 1 && active.held.iter().map(Held::octets).sum::<usize>() > octets_max {
                active.held.remove(0);
            }
        }
    }

    pub(super) fn keep_response(&mut self, key: Box<[u8]>, tag: Option<Box<[u8]>>, response: &Response, now: Instant) {
        let bounds = Bounds {
            entries_max: self.config.limits.responses_kept_max,
            octets_max: self.config.limits.responses_octets_max,
            expires: now + self.config.transmission.exchange_lifetime(),
        };
        self.active().kept.keep(key, tag, response.clone(), &bounds);
    }

    /// Puts a response into its options and, if it is too large for a datagram or the peer wants it so, the block that was
    /// asked for.
    pub(super) fn compose(
        &self,
        reply: &ReplyTo,
        response: &Response,
        observe: Option<u32>,
    ) -> Result<Composed, ConnectionError> {
        let limits = &self.config.limits;
        let too_large = |octets: usize| ConnectionError::MessageTooLargeForPeer {
            octets: octets as u64,
            octets_max: self.config.max_message_size_peer,
        };
        let octets = response.payload.len();
        if octets > self.config.max_message_size_peer as usize {
            return Err(too_large(octets));
        }
        let mut base = Vec::new();
        response.write_options(&mut OptionWriter::new(&mut base), false);
        let head = HEADER_OCTETS + reply.token.as_slice().len() + base.len() + BLOCK_OPTIONS_OCTETS;
        let wanted = reply.block2.map(|block| block.size).or(reply.size);
        let room = limits.datagram_octets_max.saturating_sub(head);
        let size = BlockSize::at_most(room.min(limits.block_octets_max.into()));
        let size = wanted.map_or(size, |wanted| wanted.min(size));
        let offset = reply.block2.map_or(0, Block::offset);
        let cut = offset > 0 || octets >= room || wanted.is_some_and(|wanted| octets > wanted.octets());
        if cut && !is_countable(octets, size) {
            return Err(too_large(octets));
        }
        let out_of_range = offset > 0 && offset >= octets;
        let shown = cut || (reply.block2.is_some() && octets > 0);
        let block = (shown && !out_of_range).then(|| Block::at(offset, octets, size));
        let more = block.is_some_and(|block| block.more);
        let etag = (cut && !out_of_range).then(|| reply.etag.unwrap_or_else(|| etag(&response.payload)));
        let number = observe.map(Uint::new);
        let block2 = block.map(Block::encode);
        let block1 = reply.block1.map(Block::encode);
        let size2 = (more && offset == 0).then(|| Uint::new(u32::try_from(octets).unwrap_or(u32::MAX)));
        let mut added: Vec<(u16, &[u8])> = Vec::new();
        added.extend(etag.as_ref().map(|etag| (number::ETAG, &etag[..])));
        for (number, value) in
            [(number::OBSERVE, &number), (number::BLOCK2, &block2), (number::BLOCK1, &block1), (number::SIZE2, &size2)]
        {
            added.extend(value.as_ref().map(|value| (number, value.as_slice())));
        }
        let options = merged(OptionReader::new(&base), &[], &added);
        // RFC 7959 2.4 leaves the answer to a block beyond the end to RFC 7252's 4.00.
        let code = if out_of_range { Code::BAD_REQUEST } else { response.code };
        Ok(Composed { code, options, block, more, out_of_range })
    }

    /// Answers what is not handed over: 4.xx with a text, for people.
    fn refuse(&mut self, datagram: &Datagram<'_>, refusal: Refusal, block1: Option<Block>) {
        count(&mut self.counters.requests_refused);
        // RFC 7252 5.4.1: a non-confirmable message with a critical option that is not understood is rejected.
        if datagram.kind == Type::NonConfirmable && refusal.code == Code::BAD_OPTION {
            return;
        }
        let block1 = block1.map(|block| block.last().encode());
        let added: Vec<(u16, &[u8])> =
            block1.as_ref().map(|value| (number::BLOCK1, value.as_slice())).into_iter().collect();
        let text = if self.is_address_proven() { refusal.diagnostic } else { "" };
        self.answer(datagram, &Response::new(refusal.code).with_payload(text), &added);
    }

    /// 4.29: over a limit on what the peer may have under way at once.
    fn refuse_for_now(&mut self, datagram: &Datagram<'_>) {
        count(&mut self.counters.requests_over_limit);
        let response = Response::new(Code::TOO_MANY_REQUESTS).with_max_age(TOO_MANY_REQUESTS_MAX_AGE_SECONDS);
        self.answer(datagram, &response, &[]);
    }

    /// 4.13 with Size1: what would be taken (RFC 7959 2.9.3, 4).
    fn refuse_too_large(&mut self, datagram: &Datagram<'_>, block1: Option<Block>) {
        count(&mut self.counters.requests_refused);
        let size1 = Uint::new(self.config.max_message_size_own);
        let block1 = block1.map(|block| block.last().encode());
        let mut added: Vec<(u16, &[u8])> = Vec::new();
        added.extend(block1.as_ref().map(|value| (number::BLOCK1, value.as_slice())));
        added.push((number::SIZE1, size1.as_slice()));
        self.answer(datagram, &Response::new(Code::REQUEST_ENTITY_TOO_LARGE), &added);
    }

    /// Answers a request at once.
    fn answer(&mut self, datagram: &Datagram<'_>, response: &Response, added: &[(u16, &[u8])]) {
        let mut base = Vec::new();
        response.write_options(&mut OptionWriter::new(&mut base), false);
        let options = merged(OptionReader::new(&base), &[], added);
        let composed = Composed { code: response.code, options, block: None, more: false, out_of_range: false };
        self.answer_composed(datagram, &composed, &response.payload);
    }

    fn answer_composed(&mut self, datagram: &Datagram<'_>, composed: &Composed, payload: &[u8]) {
        let (message_id, token) = (datagram.message_id, &datagram.frame.token);
        if datagram.kind == Type::Confirmable {
            let answer =
                wire::write(Type::Acknowledgement, message_id, composed.code, token, &composed.options, payload);
            self.remember(message_id, Outcome::Answered(answer.as_slice().into()));
            self.transmit(answer);
        } else {
            let answer = wire::write(Type::NonConfirmable, 0, composed.code, token, &composed.options, payload);
            self.send_unacknowledged(answer);
        }
    }

    /// Sends a response that asks for no acknowledgement. It waits only where no Message ID is free, and then but few do.
    fn send_unacknowledged(&mut self, datagram: Vec<u8>) {
        let waiting_max = self.config.limits.responses_waiting_max.max(1);
        let sending = &mut self.active().sending;
        if sending.waiting_responses() >= waiting_max {
            count(&mut self.counters.dropped);
        } else {
            sending.enqueue_first(datagram, Purpose::Response, false);
        }
    }

    /// Acknowledges requests that the application has not answered in time for the acknowledgement.
    pub(super) fn acknowledge_slow_requests(&mut self, now: Instant) {
        let due = |request: &&mut PeerRequest| request.acknowledge_at.is_some_and(|at| at <= now);
        let message_ids: Vec<u16> = self
            .active()
            .peer_requests
            .iter_mut()
            .filter(due)
            .map(|request| {
                request.acknowledge_at = None;
                request.message_id
            })
            .collect();
        for message_id in message_ids {
            self.remember(message_id, Outcome::Acknowledged);
            self.transmit(wire::empty(Type::Acknowledgement, message_id));
        }
    }

    /// An empty acknowledgement, if one is due: there will be no response.
    fn acknowledge_request(&mut self, request: &PeerRequest) {
        if request.acknowledge_at.is_some() {
            self.remember(request.message_id, Outcome::Acknowledged);
            self.transmit(wire::empty(Type::Acknowledgement, request.message_id));
        }
    }
}

/// Of a response as a datagram.
fn octets_of(token: Token, options: &[u8], payload: &[u8]) -> usize {
    HEADER_OCTETS + token.as_slice().len() + options.len() + 1 + payload.len()
}

/// The number of the response that begins an observation.
const FIRST_NUMBER: u32 = 1;
