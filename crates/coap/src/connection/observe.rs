//! Observations: one request, many responses (RFC 7641), as RFC 8323 7 has them over a stream.
//!
//! ```text
//! GET, Observe 0 ──> 2.05 with Observe ──> 2.05 with Observe ... ──> a response without Observe: over
//!        │                                        │
//!        │                                        ├── GET, Observe 1, same token ──> over, answered without Observe
//!        │                                        └── the connection ends ─────────> over
//!        └─ refused, or too many: a response without Observe, as to any GET
//! ```
//!
//! A stream keeps order, so notifications carry an empty Observe option and its value is not looked at (RFC 8323 7.1).

use std::borrow::Borrow;

use super::{Queued, StreamConnection, StreamEvent};
use crate::code::Kind;
use crate::error::StreamError;
use crate::frame::Token;
use crate::message::{ExchangeId, Observe, RequestBuilder, Response};

/// The observations of one connection, in both directions. There are few of them, and on most connections none.
#[derive(Debug, Default)]
pub(super) struct Observations {
    /// Ours, by token.
    own: Vec<(u32, ExchangeId)>,
    /// The peer's, with the token to notify with.
    peer: Vec<(ExchangeId, Token)>,
}

impl Observations {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn own_token(&self, token: u32) -> bool {
        self.own.iter().any(|(own, _)| *own == token)
    }

    pub(super) fn own_exchange(&self, token: u32) -> Option<ExchangeId> {
        self.own.iter().find(|(own, _)| *own == token).map(|(_, exchange)| *exchange)
    }

    pub(super) fn forget_own(&mut self, token: u32) {
        self.own.retain(|(own, _)| *own != token);
    }
}

impl StreamConnection {
    /// Sends another response to a request of the peer that observes (RFC 7641 4.2). One of class 2 is a notification;
    /// any other ends the observation. If it fails with [`StreamError::TransmitFull`] or
    /// [`StreamError::MessageTooLargeForPeer`], the observation goes on, and the state it was to tell is told by the
    /// next that goes through.
    pub fn notify(&mut self, exchange: ExchangeId, response: impl Borrow<Response>) -> Result<(), StreamError> {
        let response = response.borrow();
        self.check_open()?;
        if self.released || self.released_by_peer {
            return Err(StreamError::Released);
        }
        if response.code.kind() != Kind::Response {
            return Err(StreamError::InvalidCode(response.code));
        }
        let observations = &self.observations.peer;
        let token = observations.iter().find(|(observed, _)| *observed == exchange).map(|(_, token)| *token);
        let token = token.ok_or(StreamError::UnknownExchange)?;
        let goes_on = response.code.is_success();
        self.write(response.code, &token, &response.payload, |options| response.write_options(options, goes_on))?;
        if !goes_on {
            self.observations.peer.retain(|(observed, _)| *observed != exchange);
        }
        Ok(())
    }

    /// Whether the peer observes with this request: it asked to, was answered with class 2, and it has not ended since.
    #[must_use]
    pub fn is_observed(&self, exchange: ExchangeId) -> bool {
        self.observations.peer.iter().any(|(observed, _)| *observed == exchange)
    }

    /// Ends an observation of ours, by a GET with Observe 1 and the observation's token (RFC 7641 3.6); `request` is the
    /// request that began it, and its own Observe does not count. The answer comes as
    /// [`StreamEvent::Response`] without `observe`; notifications that were under way come before it.
    pub fn stop_observing<'a>(
        &mut self,
        exchange: ExchangeId,
        request: impl Borrow<RequestBuilder<'a>>,
    ) -> Result<(), StreamError> {
        let request = request.borrow().clone().observe(Observe::Deregister);
        self.check_open()?;
        if self.released || self.released_by_peer {
            return Err(StreamError::Released);
        }
        request.check()?;
        let token = super::token_of(exchange);
        if self.observations.own_exchange(token) != Some(exchange) {
            return Err(StreamError::UnknownExchange);
        }
        self.write(request.method(), &Token::from_number(token), request.payload_octets(), |options| {
            request.write_options(options);
        })
    }

    /// Observations of ours that stand.
    #[must_use]
    pub fn observations(&self) -> usize {
        self.observations.own.len()
    }

    /// Enters an observation of ours: its request was answered with Observe. Beyond the limit it is as if the peer had
    /// not granted it: what it sends later is not handed on.
    pub(super) fn observe_own(&mut self, token: u32, exchange: ExchangeId) -> bool {
        if self.observations.own.len() >= self.config.limits.observations_max {
            return false;
        }
        self.observations.own.push((token, exchange));
        true
    }

    /// Enters an observation of the peer, which asked for it with this token. False at the limit: the answer then goes
    /// without Observe, which tells the peer (RFC 7641 4.1).
    pub(super) fn observe_peer(&self, token: Token) -> bool {
        let others = self.observations.peer.iter().filter(|(_, other)| *other != token).count();
        others < self.config.limits.peer_observations_max
    }

    /// The answer that grants an observation has been written: it stands.
    pub(super) fn observed_by_peer(&mut self, exchange: ExchangeId, token: Token) {
        self.end_peer_observation(token);
        self.observations.peer.push((exchange, token));
    }

    /// Whatever the peer observes with this token ends: it deregisters, or uses the token for another request.
    pub(super) fn end_peer_observation(&mut self, token: Token) {
        let events = &mut self.events;
        self.observations.peer.retain(|(observation, other)| {
            let ends = *other == token;
            if ends {
                events.push_back(Queued::Event(StreamEvent::ObservationEnded { exchange: *observation }));
            }
            !ends
        });
    }
}
