//! Observations over datagrams (RFC 7641).
//!
//! ```text
//! GET, Observe 0 ──> 2.05, Observe n ──> CON 2.05, Observe n+1 ── ACK ──> ... ──> a response without Observe: over
//!        │                                     │
//!        │                                     ├── acknowledged by nobody, or RST ──> over
//!        │                                     └── GET, Observe 1, same token ──────> over, answered without Observe
//!        └─ refused, or too many: a response without Observe, as to any GET
//! ```
//!
//! Notifications are confirmable: an observer that sleeps must not miss the last. While one is under way, only the newest
//! of those that follow is kept (RFC 7641 4.5.2).

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::DatagramConnection;
use super::reliability::Purpose;
use super::requesting::{OwnRequest, Role, Template};
use super::responding::ReplyTo;
use super::wire::{self, Type};
use crate::block::{BlockSize, Extras};
use crate::code::Kind;
use crate::error::ConnectionError;
use crate::event::{ConnectionEvent, Failure};
use crate::frame::Token;
use crate::message::{ExchangeId, Observe, RequestBuilder, Response};

/// Notifications are numbered with 24 bits (RFC 7641 4.4).
const NUMBER_MASK: u32 = 0xff_ffff;

/// After so long any number is newer (RFC 7641 3.4).
const REORDERING_MAX: Duration = Duration::from_secs(128);

/// An observation of ours.
#[derive(Debug)]
struct Own {
    token: u32,
    exchange: ExchangeId,
    /// The request, to ask for further blocks.
    template: Arc<Template>,
    number: u32,
    at: Instant,
}

/// An observation of the peer.
#[derive(Debug)]
struct Peer {
    exchange: ExchangeId,
    token: Token,
    number: u32,
    key: Box<[u8]>,
    size: Option<BlockSize>,
    /// What is to be sent once the notification before it is acknowledged, or instead of it.
    newer: Option<Vec<u8>>,
}

/// The observations of one association, in both directions. There are few of them, and mostly none.
#[derive(Debug, Default)]
pub(super) struct Observations {
    own: Vec<Own>,
    peer: Vec<Peer>,
}

impl Observations {
    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.peer.is_empty()
    }

    pub(super) fn own_exchange(&self, token: u32) -> Option<ExchangeId> {
        self.own.iter().find(|own| own.token == token).map(|own| own.exchange)
    }

    pub(super) fn is_own(&self, exchange: ExchangeId) -> bool {
        self.own.iter().any(|own| own.exchange == exchange)
    }

    /// Enters an observation that the peer has granted. False at the limit: then it is as if it had not.
    pub(super) fn enter_own(
        &mut self,
        request: &OwnRequest,
        template: Arc<Template>,
        number: u32,
        now: Instant,
        entries_max: usize,
    ) -> bool {
        let room = self.own.len() < entries_max;
        if room {
            self.own.push(Own { token: request.token, exchange: request.exchange, template, number, at: now });
        }
        room
    }

    pub(super) fn forget_own(&mut self, exchange: ExchangeId) {
        self.own.retain(|own| own.exchange != exchange);
    }

    pub(super) fn has_newer(&self, exchange: ExchangeId) -> bool {
        self.peer.iter().any(|peer| peer.exchange == exchange && peer.newer.is_some())
    }

    pub(super) fn take_newer(&mut self, exchange: ExchangeId) -> Option<Vec<u8>> {
        self.peer.iter_mut().find(|peer| peer.exchange == exchange)?.newer.take()
    }
}

impl DatagramConnection {
    /// Sends another response to a request of the peer that observes (RFC 7641 4.2). One of class 2 is a notification;
    /// any other ends the observation. While an earlier notification is not acknowledged, the newest one waits, and those
    /// between are not sent. If it fails with [`ConnectionError::TransmitFull`] or
    /// [`ConnectionError::MessageTooLargeForPeer`], the observation goes on.
    pub fn notify(
        &mut self,
        exchange: ExchangeId,
        response: impl Borrow<Response>,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let response = response.borrow();
        self.check_may_request()?;
        if response.code.kind() != Kind::Response {
            return Err(ConnectionError::InvalidCode(response.code));
        }
        self.check_transmit()?;
        let peer = self
            .active
            .as_mut()
            .and_then(|active| active.observations.peer.iter_mut().find(|peer| peer.exchange == exchange));
        let peer = peer.ok_or(ConnectionError::UnknownExchange)?;
        let number = peer.number.wrapping_add(1) & NUMBER_MASK;
        let (token, key, size) = (peer.token, peer.key.clone(), peer.size);
        let goes_on = response.code.is_success();
        let reply = ReplyTo { token, block1: None, block2: None, size, etag: None };
        let composed = self.compose(&reply, response, goes_on.then_some(number))?;
        let datagram =
            wire::write(Type::Confirmable, 0, composed.code, &token, &composed.options, composed.payload(response));
        if composed.more {
            self.keep_response(key, None, response, now);
        }
        let active = self.active();
        let purpose = Purpose::Notification(exchange);
        if !goes_on {
            active.sending.forget(purpose);
            active.observations.peer.retain(|peer| peer.exchange != exchange);
            active.sending.enqueue(datagram, Purpose::Response, true);
        } else if let Some(peer) = active.observations.peer.iter_mut().find(|peer| peer.exchange == exchange) {
            peer.number = number;
            if active.sending.is_in_flight(purpose) {
                peer.newer = Some(datagram);
            } else if !active.sending.replace_waiting(purpose, &datagram) {
                active.sending.enqueue(datagram, purpose, true);
            }
        }
        self.pump(now);
        Ok(())
    }

    /// Whether the peer observes with this request: it asked to, was answered with class 2, and it has not ended since.
    #[must_use]
    pub fn is_observed(&self, exchange: ExchangeId) -> bool {
        self.active.as_ref().is_some_and(|active| active.observations.peer.iter().any(|peer| peer.exchange == exchange))
    }

    /// Ends an observation of ours, by a GET with Observe 1 and the observation's token (RFC 7641 3.6); `request` is the
    /// request that began it, and its own Observe does not count. The answer comes as [`ConnectionEvent::Response`]
    /// without `observe`; notifications that were under way may come before it.
    pub fn stop_observing<'a>(
        &mut self,
        exchange: ExchangeId,
        request: impl Borrow<RequestBuilder<'a>>,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let request = request.borrow().clone().observe(Observe::Deregister);
        self.check_may_request()?;
        request.check()?;
        let own =
            self.active.as_ref().and_then(|active| active.observations.own.iter().find(|own| own.exchange == exchange));
        let token = own.map(|own| own.token).ok_or(ConnectionError::UnknownExchange)?;
        self.begin_deregistration(exchange, token, &request, now)?;
        self.pump(now);
        Ok(())
    }

    /// Observations of ours that stand.
    #[must_use]
    pub fn observations(&self) -> usize {
        self.active.as_ref().map_or(0, |active| active.observations.own.len())
    }

    /// A further response to a request that observes.
    pub(super) fn take_notification(&mut self, token: u32, extras: &Extras<'_>, mut response: Response, now: Instant) {
        let own_max = self.config.max_message_size_own as usize;
        let active = self.active();
        let Some(own) = active.observations.own.iter_mut().find(|own| own.token == token) else { return };
        let exchange = own.exchange;
        let Some(number) = extras.observe.filter(|_| response.code.is_success()) else {
            response.observe = false;
            self.forget_request(exchange);
            self.push_event(ConnectionEvent::Response { exchange, response });
            return;
        };
        if !is_newer(own.number, number, now.saturating_duration_since(own.at)) {
            return;
        }
        (own.number, own.at) = (number, now);
        let template = Arc::clone(&own.template);
        // What was being fetched of the notification before is out of date.
        let outdated: Vec<u32> = active
            .requests
            .extract_if(.., |request| request.exchange == exchange && request.role == Role::Blocks)
            .map(|request| request.token)
            .collect();
        for token in outdated {
            active.sending.forget(Purpose::Request(token));
        }
        response.observe = true;
        match extras.block2 {
            Some(block) if block.number > 0 || (block.more && response.payload.len() != block.size.octets()) => {
                self.forget_request(exchange);
                self.push_event(ConnectionEvent::Failed { exchange, failure: Failure::Unusable });
            }
            Some(block) if block.more => {
                let mut rest = OwnRequest::for_blocks(exchange, template, now);
                rest.begin_download(extras, response, block.size);
                self.continue_request(rest, now);
            }
            _ if response.payload.len() > own_max => {
                self.forget_request(exchange);
                self.push_event(ConnectionEvent::Failed { exchange, failure: Failure::TooLarge });
            }
            _ => self.push_event(ConnectionEvent::Response { exchange, response }),
        }
    }

    /// Whether one more observation of the peer, with that token, is within the limit.
    pub(super) fn has_room_for_observation(&self, token: Token) -> bool {
        let others = self
            .active
            .as_ref()
            .map_or(0, |active| active.observations.peer.iter().filter(|peer| peer.token != token).count());
        others < self.config.limits.peer_observations_max
    }

    /// The answer that grants an observation is on its way: it stands.
    pub(super) fn observed_by_peer(
        &mut self,
        exchange: ExchangeId,
        token: Token,
        number: u32,
        key: Box<[u8]>,
        size: Option<BlockSize>,
    ) {
        self.end_observation_with_token(token);
        self.active().observations.peer.push(Peer { exchange, token, number, key, size, newer: None });
    }

    /// Whatever the peer observes with this token ends: it deregisters, or uses the token for another request.
    pub(super) fn end_observation_with_token(&mut self, token: Token) {
        let peers = self.active.iter().flat_map(|active| &active.observations.peer);
        let ended = peers.filter(|peer| peer.token == token).map(|peer| peer.exchange).next();
        if let Some(exchange) = ended {
            self.end_peer_observation(exchange);
        }
    }

    /// It ends, and the application is told.
    pub(super) fn end_peer_observation(&mut self, exchange: ExchangeId) {
        let active = self.active();
        active.sending.forget(Purpose::Notification(exchange));
        let before = active.observations.peer.len();
        active.observations.peer.retain(|peer| peer.exchange != exchange);
        if active.observations.peer.len() < before {
            self.push_event(ConnectionEvent::ObservationEnded { exchange });
        }
    }

    /// The notification before it was acknowledged.
    pub(super) fn send_newer(&mut self, exchange: ExchangeId) {
        let active = self.active();
        if let Some(newer) = active.observations.take_newer(exchange) {
            active.sending.enqueue(newer, Purpose::Notification(exchange), true);
        }
    }
}

/// RFC 7641 3.4.
fn is_newer(before: u32, number: u32, elapsed: Duration) -> bool {
    let ahead = number.wrapping_sub(before) & NUMBER_MASK;
    (ahead != 0 && ahead < 1 << 23) || elapsed > REORDERING_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_are_ordered_as_rfc_7641_says() {
        let now = Duration::ZERO;
        assert!(is_newer(1, 2, now) && !is_newer(2, 1, now) && !is_newer(2, 2, now));
        assert!(is_newer(0xff_ffff, 0, now) && !is_newer(0, 0xff_ffff, now), "they come round");
        assert!(is_newer(0, (1 << 23) - 1, now) && !is_newer(0, 1 << 23, now));
        assert!(is_newer(2, 1, Duration::from_secs(129)));
    }
}
