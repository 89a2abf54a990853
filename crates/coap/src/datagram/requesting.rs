//! Our requests, from the call to the event: blocks out, blocks in, Echo (RFC 7252 5.2, RFC 7959, RFC 9175).
//!
//! ```text
//! request ──> fits? ── yes ─────────────────────────> message ──> response ──> one block? ── yes ──> event
//!              └ no ──> Block1 0 ─ 2.31 ─> 1 ─ ... ──> last block ──^   ^       └ no ──> Block2 1 ─> 2 ─ ... ──> event
//!                                                                       └── 4.01 with Echo: once more, with it
//! ```
//!
//! Every message has a token of its own, since a token that is used twice could let a late response answer the wrong one
//! (RFC 9175 4.2).

use std::sync::Arc;
use std::time::Instant;

use super::reliability::Purpose;
use super::wire::{self, Datagram, HEADER_OCTETS, Type};
use super::{DatagramConnection, count};
use crate::block::{BlockSize, Extras, is_countable, number};
use crate::code::Code;
use crate::error::ConnectionError;
use crate::event::{ConnectionEvent, Failure};
use crate::frame::{OptionWriter, Token};
use crate::limits::DatagramConfig;
use crate::message::{self, ExchangeId, RequestBuilder, Response};
use crate::transfer::{Step, StepContext, Transfer};

/// Length of our tokens.
const TOKEN_OCTETS: usize = 4;

/// What the options that are added to a request for block-wise transfer take at most, Echo aside.
const BLOCK_OPTIONS_OCTETS: usize = 24;

/// What Request-Tag takes at most.
const TAG_OPTION_OCTETS: usize = 3 + TOKEN_OCTETS;

/// A request as the application gave it.
#[derive(Debug)]
pub(super) struct Template {
    method: Code,
    confirmable: bool,
    options: Box<[u8]>,
    payload: Box<[u8]>,
}

impl Template {
    /// Whether the peer could take the blocks of the response to one for those of the response to the other.
    fn is_like(&self, other: &Self) -> bool {
        self.method == other.method
            && self.options == other.options
            && (self.method != Code::FETCH || self.payload == other.payload)
    }
}

/// What a request of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Plain,
    ToObserve,
    StopObserving,
    /// The rest of a response that is part of an observation.
    Blocks,
}

/// A request of ours without its answer.
#[derive(Debug)]
pub(super) struct OwnRequest {
    pub(super) exchange: ExchangeId,
    pub(super) token: u32,
    pub(super) role: Role,
    deadline: Instant,
    template: Arc<Template>,
    transfer: Transfer,
    /// To be repeated to the peer in the next message.
    echo: Option<Box<[u8]>>,
    /// It has been, which is tried once.
    echoed: bool,
}

impl OwnRequest {
    pub(super) fn exchange(&self) -> ExchangeId {
        self.exchange
    }

    /// Whether its last message has that token.
    pub(super) fn is_under(&self, token: u32) -> bool {
        self.token == token
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The rest of a notification, of which the first block has come.
    pub(super) fn for_blocks(exchange: ExchangeId, template: Arc<Template>, now: Instant) -> Self {
        Self {
            exchange,
            token: 0,
            role: Role::Blocks,
            deadline: now,
            template,
            transfer: Transfer::default(),
            echo: None,
            echoed: false,
        }
    }

    pub(super) fn begin_download(&mut self, extras: &Extras<'_>, response: Response, size: BlockSize) {
        self.transfer.begin_download(extras, response, size);
    }

    /// The next message, under a Message ID that is not set yet.
    fn compose(&self) -> Vec<u8> {
        let template = &*self.template;
        let left_out: &[u16] = if self.role == Role::Blocks { &[number::OBSERVE] } else { &[] };
        let (options, payload) = self.transfer.compose(
            template.method,
            &template.options,
            &template.payload,
            left_out,
            self.echo.as_deref(),
        );
        let kind = if template.confirmable { Type::Confirmable } else { Type::NonConfirmable };
        wire::write(kind, 0, template.method, &Token::from_number(self.token), &options, payload)
    }

    /// What a response leads to.
    fn step(&mut self, extras: &Extras<'_>, response: Response, config: &DatagramConfig) -> Step {
        if response.code == Code::UNAUTHORIZED
            && let Some(echo) = extras.echo
            && !self.echoed
        {
            self.echoed = true;
            self.echo = Some(echo.into());
            return Step::Again;
        }
        self.echo = None;
        let context = StepContext {
            payload_octets: self.template.payload.len(),
            response_octets_max: config.max_message_size_own as usize,
            tag: self.token,
        };
        self.transfer.step(extras, response, &context)
    }
}

impl DatagramConnection {
    pub(super) fn begin_request(
        &mut self,
        request: &RequestBuilder<'_>,
        now: Instant,
    ) -> Result<ExchangeId, ConnectionError> {
        self.check_room_for_request()?;
        let own = self.prepare_request(request, now)?;
        let exchange = own.exchange;
        self.enqueue_request(own, now);
        Ok(exchange)
    }

    /// A request with its first message, which has not got its turn yet.
    fn prepare_request(&mut self, request: &RequestBuilder<'_>, now: Instant) -> Result<OwnRequest, ConnectionError> {
        request.check()?;
        let template = Arc::new(template(request));
        let mut under_way = self.active.iter().flat_map(|active| &active.requests);
        let alike = under_way.any(|own| own.template.is_like(&template));
        let size = self.upload_size(&template, alike)?;
        let exchange = self.next_exchange();
        let role = if request.asks_to_observe() { Role::ToObserve } else { Role::Plain };
        let mut own = OwnRequest { role, ..OwnRequest::for_blocks(exchange, template, now) };
        own.token = self.fresh_token();
        if let Some(size) = size {
            own.transfer.begin_upload(size, own.token);
        } else if alike {
            own.transfer.tagged(own.token);
        }
        Ok(own)
    }

    /// Sends a request that has to be answered before the turn of others comes (RFC 7252 4.7 counts it nevertheless), or
    /// fails. There may be one more of these than [`crate::DatagramLimits::requests_outstanding_max`].
    pub(crate) fn request_at_once(
        &mut self,
        request: &RequestBuilder<'_>,
        now: Instant,
    ) -> Result<ExchangeId, ConnectionError> {
        self.check_may_request()?;
        self.check_transmit()?;
        let message_id = self.message_id_at_once(now).ok_or(ConnectionError::TransmitFull)?;
        let mut own = self.prepare_request(request, now)?;
        own.deadline = now + self.config.transmission.max_transmit_wait();
        let (exchange, purpose, message) = (own.exchange, Purpose::Request(own.token), own.compose());
        let confirmable = own.template.confirmable;
        self.active().requests.push(own);
        self.transmit_at_once(message, message_id, purpose, confirmable, now);
        Ok(exchange)
    }

    /// A GET with Observe 1 and the token of the observation (RFC 7641 3.6).
    pub(super) fn begin_deregistration(
        &mut self,
        exchange: ExchangeId,
        token: u32,
        request: &RequestBuilder<'_>,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        self.check_room_for_request()?;
        let template = Arc::new(template(request));
        self.upload_size(&template, false)?;
        let own = OwnRequest { role: Role::StopObserving, token, ..OwnRequest::for_blocks(exchange, template, now) };
        self.enqueue_request(own, now);
        Ok(())
    }

    fn check_room_for_request(&self) -> Result<(), ConnectionError> {
        if self.requests_outstanding() >= self.config.limits.requests_outstanding_max {
            return Err(ConnectionError::TooManyRequests);
        }
        self.check_transmit()
    }

    /// The block size of a request that does not fit into one datagram; none if it does.
    fn upload_size(&self, template: &Template, tagged: bool) -> Result<Option<BlockSize>, ConnectionError> {
        let limits = &self.config.limits;
        let octets = template.payload.len() as u64;
        if octets > u64::from(self.config.max_message_size_peer) {
            return Err(ConnectionError::MessageTooLargeForPeer {
                octets,
                octets_max: self.config.max_message_size_peer,
            });
        }
        let head = HEADER_OCTETS + TOKEN_OCTETS + template.options.len();
        let marked = if template.payload.is_empty() { 0 } else { 1 + template.payload.len() };
        let tag = if tagged { TAG_OPTION_OCTETS } else { 0 };
        if head + marked + tag <= limits.datagram_octets_max {
            return Ok(None);
        }
        let room = limits.datagram_octets_max.saturating_sub(head + BLOCK_OPTIONS_OCTETS);
        let size = BlockSize::at_most(room.min(usize::from(limits.block_octets_max)));
        if room < size.octets() || !is_countable(template.payload.len(), size) {
            return Err(ConnectionError::MessageTooLargeForPeer {
                octets: (head + marked) as u64,
                octets_max: u32::try_from(limits.datagram_octets_max).unwrap_or(u32::MAX),
            });
        }
        Ok(Some(size))
    }

    /// Enters a request and lets its next message wait for its turn. What goes on with a block-wise transfer takes turns
    /// with what waits besides, so that a long one does not hold up a short one.
    fn enqueue_request(&mut self, mut own: OwnRequest, now: Instant) {
        own.deadline = now + self.config.transmission.max_transmit_wait();
        let (purpose, confirmable) = (Purpose::Request(own.token), own.template.confirmable);
        let message = own.compose();
        let active = self.active();
        active.sending.enqueue(message, purpose, confirmable);
        active.requests.push(own);
    }

    /// The next message of a request that is under way.
    pub(super) fn continue_request(&mut self, mut own: OwnRequest, now: Instant) {
        own.token = self.fresh_token();
        self.enqueue_request(own, now);
    }

    /// A response that came with the acknowledgement.
    pub(super) fn take_piggybacked(&mut self, datagram: &Datagram<'_>, now: Instant) {
        if self.take_proof(datagram) {
            return;
        }
        let purpose = self.active.as_ref().and_then(|active| active.sending.purpose(datagram.message_id));
        let asked = datagram.frame.token.number().map(Purpose::Request);
        if purpose.is_none() || purpose != asked || !self.take_response(datagram, now) {
            count(&mut self.counters.ignored);
        }
    }

    /// A response in a message of its own.
    pub(super) fn take_separate(&mut self, datagram: &Datagram<'_>, now: Instant) {
        if self.take_proof(datagram) || self.take_response(datagram, now) {
            self.acknowledge(datagram);
        } else if datagram.kind == Type::NonConfirmable
            && Extras::read(&datagram.frame).is_ok_and(|extras| extras.observe.is_some())
        {
            // RFC 7641 3.6: this is how the peer learns that nobody observes any more.
            self.send_reset(datagram.message_id);
        } else {
            self.reject(datagram);
        }
    }

    /// False if it answers nothing that was asked.
    fn take_response(&mut self, datagram: &Datagram<'_>, now: Instant) -> bool {
        let Some(token) = datagram.frame.token.number() else { return false };
        let Some(active) = &self.active else { return false };
        let asked = active.requests.iter().position(|own| own.token == token);
        let observed = active.observations.own_exchange(token);
        if asked.is_none() && observed.is_none() {
            return false;
        }
        let read = message::read_response(&datagram.frame, self.config.limits.options_max, self.served());
        let (Ok(Ok(response)), Ok(extras)) = (read, Extras::read(&datagram.frame)) else {
            match observed {
                Some(exchange) => self.fail_exchange(exchange, Failure::Unusable),
                None => self.fail_request(token, Failure::Unusable),
            }
            return true;
        };
        let is_notification = extras.observe.is_some() && observed.is_some();
        match asked {
            Some(place) if !is_notification => self.take_answer(place, &extras, response, now),
            _ => self.take_notification(token, &extras, response, now),
        }
        true
    }

    fn take_answer(&mut self, place: usize, extras: &Extras<'_>, response: Response, now: Instant) {
        let config = Arc::clone(&self.config);
        let active = self.active();
        let mut own = active.requests.swap_remove(place);
        active.sending.forget(Purpose::Request(own.token));
        if own.role == Role::ToObserve && response.code != Code::CONTINUE && response.code != Code::UNAUTHORIZED {
            let granted = extras.observe.filter(|_| response.code.is_success());
            let entered = granted.is_some_and(|number| {
                let template = Arc::clone(&own.template);
                active.observations.enter_own(&own, template, number, now, config.limits.observations_max)
            });
            own.role = if entered { Role::Blocks } else { Role::Plain };
        }
        match own.step(extras, response, &config) {
            Step::Again => self.continue_request(own, now),
            Step::Done(response) => self.finish(&own, response),
            Step::Changed => self.fetch_anew(own, now),
            Step::Failed(failure) => {
                self.fail_observation_of(&own);
                self.push_event(ConnectionEvent::Failed { exchange: own.exchange, failure });
            }
        }
    }

    /// The resource changed while its blocks were fetched. What has no effect is asked once more; after that a notification
    /// of the newest state is on its way to who observes, and to others it is a failure.
    fn fetch_anew(&mut self, mut own: OwnRequest, now: Instant) {
        let safe = matches!(own.template.method, Code::GET | Code::FETCH);
        if safe && own.transfer.may_fetch_anew() {
            self.continue_request(own, now);
        } else if own.role != Role::Blocks {
            self.push_event(ConnectionEvent::Failed { exchange: own.exchange, failure: Failure::Unusable });
        }
    }

    fn finish(&mut self, own: &OwnRequest, mut response: Response) {
        let observations = &mut self.active().observations;
        response.observe = own.role == Role::Blocks && response.code.is_success() && observations.is_own(own.exchange);
        if own.role != Role::Plain && !response.observe {
            observations.forget_own(own.exchange);
        }
        self.push_event(ConnectionEvent::Response { exchange: own.exchange, response });
    }

    /// A request whose last message has that token is over without a response.
    pub(super) fn fail_request(&mut self, token: u32, failure: Failure) {
        let active = self.active();
        active.sending.forget(Purpose::Request(token));
        let Some(place) = active.requests.iter().position(|own| own.token == token) else { return };
        let own = active.requests.swap_remove(place);
        self.fail_observation_of(&own);
        self.push_event(ConnectionEvent::Failed { exchange: own.exchange, failure });
    }

    fn fail_observation_of(&mut self, own: &OwnRequest) {
        if own.role != Role::Plain {
            self.active().observations.forget_own(own.exchange);
        }
    }

    /// The same for an observation and all that was asked for it.
    fn fail_exchange(&mut self, exchange: ExchangeId, failure: Failure) {
        self.forget_request(exchange);
        self.push_event(ConnectionEvent::Failed { exchange, failure });
    }

    /// Fails what got no response in time.
    pub(super) fn fail_unanswered(&mut self, now: Instant) {
        let active = self.active();
        let overdue: Vec<u32> = active.requests.iter().filter(|own| own.deadline <= now).map(|own| own.token).collect();
        for token in overdue {
            let unacknowledged = self.active().sending.is_unacknowledged(Purpose::Request(token));
            let failure = if unacknowledged { Failure::NotAcknowledged } else { Failure::NoAnswer };
            self.fail_request(token, failure);
        }
    }

    /// Sets until when the response to the message with that token is awaited.
    pub(super) fn await_answer(&mut self, token: u32, deadline: Instant) {
        if let Some(own) = self.active().requests.iter_mut().find(|own| own.token == token) {
            own.deadline = deadline;
        }
    }

    /// Takes back whatever was asked for that exchange.
    pub(super) fn forget_request(&mut self, exchange: ExchangeId) {
        let Some(active) = &mut self.active else { return };
        let sending = &mut active.sending;
        active.requests.retain(|own| {
            let over = own.exchange == exchange;
            if over {
                sending.forget(Purpose::Request(own.token));
            }
            !over
        });
        active.observations.forget_own(exchange);
    }

    /// A token that is not in use. They come round after 2^32.
    fn fresh_token(&mut self) -> u32 {
        loop {
            let token = self.next_token;
            self.next_token = token.wrapping_add(1);
            let in_use = self.active.as_ref().is_some_and(|active| {
                active.requests.iter().any(|own| own.token == token)
                    || active.observations.own_exchange(token).is_some()
            });
            if !in_use {
                return token;
            }
        }
    }
}

fn template(request: &RequestBuilder<'_>) -> Template {
    let mut options = Vec::new();
    request.write_options(&mut OptionWriter::new(&mut options));
    Template {
        method: request.method(),
        confirmable: request.is_confirmable(),
        options: options.into(),
        payload: request.payload_octets().into(),
    }
}
