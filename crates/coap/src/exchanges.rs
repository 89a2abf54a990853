//! What streams and datagrams have in common, for whoever drives either.

use std::time::Instant;

use crate::connection::StreamConnection;
use crate::datagram::DatagramConnection;
use crate::error::ConnectionError;
use crate::event::ConnectionEvent;
use crate::message::{ExchangeId, RequestBuilder, Response};
use crate::signal::Release;

/// CoAP with one peer, over a stream ([`StreamConnection`]) or datagrams ([`DatagramConnection`]): requests both ways.
///
/// After each call, and when the time of [`Connection::poll_timeout`] has come and [`Connection::handle_timeout`] was
/// called, poll [`Connection::poll_event`] until `None`, then send what [`Connection::poll_transmit`] returns until
/// `None`, then look at [`Connection::poll_timeout`] anew. Streams take no notice of the time.
pub trait Connection {
    /// Takes octets of the stream, or one whole datagram. An error is fatal: send what is still to be transmitted, and
    /// close.
    fn receive(&mut self, octets: &[u8], now: Instant) -> Result<(), ConnectionError>;

    /// The next thing that happened.
    fn poll_event(&mut self) -> Option<ConnectionEvent>;

    /// What is to be sent: octets of the stream in order, or one whole datagram.
    fn poll_transmit(&mut self) -> Option<Vec<u8>>;

    /// When [`Connection::handle_timeout`] is to be called.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// Sends a request. The response comes as [`ConnectionEvent::Response`] with the name returned here, or
    /// [`ConnectionEvent::Failed`] says that there is none.
    fn request(&mut self, request: &RequestBuilder<'_>, now: Instant) -> Result<ExchangeId, ConnectionError>;

    /// Answers a request of the peer.
    fn respond(&mut self, exchange: ExchangeId, response: &Response, now: Instant) -> Result<(), ConnectionError>;

    /// Sends a further response to a request of the peer that observes (RFC 7641).
    fn notify(&mut self, exchange: ExchangeId, response: &Response, now: Instant) -> Result<(), ConnectionError>;

    /// Whether the peer observes with this request.
    fn is_observed(&self, exchange: ExchangeId) -> bool;

    /// Ends an observation of ours that `request` began.
    fn stop_observing(
        &mut self,
        exchange: ExchangeId,
        request: &RequestBuilder<'_>,
        now: Instant,
    ) -> Result<(), ConnectionError>;

    /// Gives up waiting for the answer to a request of ours.
    fn cancel(&mut self, exchange: ExchangeId, now: Instant);

    /// Asks the peer for a sign of life; it comes as [`ConnectionEvent::Pong`].
    fn ping(&mut self, now: Instant) -> Result<(), ConnectionError>;

    /// No new requests; close once [`Connection::is_settled`]. A stream tells the peer so.
    fn release(&mut self, release: &Release) -> Result<(), ConnectionError>;

    /// Ends everything at once. A stream tells the peer so, with `diagnostic`.
    fn abort(&mut self, diagnostic: &str);

    /// Whether it was ended at once, by either side.
    fn is_closed(&self) -> bool;

    /// Whether nothing is under way.
    fn is_settled(&self) -> bool;

    /// Requests of ours that wait for an answer.
    fn requests_outstanding(&self) -> usize;

    /// Octets that wait for [`Connection::poll_transmit`].
    fn transmit_octets(&self) -> usize;
}

impl Connection for StreamConnection {
    fn receive(&mut self, octets: &[u8], _now: Instant) -> Result<(), ConnectionError> {
        Self::receive(self, octets)
    }

    fn poll_event(&mut self) -> Option<ConnectionEvent> {
        Self::poll_event(self)
    }

    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        Self::poll_transmit(self)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn request(&mut self, request: &RequestBuilder<'_>, _now: Instant) -> Result<ExchangeId, ConnectionError> {
        Self::request(self, request)
    }

    fn respond(&mut self, exchange: ExchangeId, response: &Response, _now: Instant) -> Result<(), ConnectionError> {
        Self::respond(self, exchange, response)
    }

    fn notify(&mut self, exchange: ExchangeId, response: &Response, _now: Instant) -> Result<(), ConnectionError> {
        Self::notify(self, exchange, response)
    }

    fn is_observed(&self, exchange: ExchangeId) -> bool {
        Self::is_observed(self, exchange)
    }

    fn stop_observing(
        &mut self,
        exchange: ExchangeId,
        request: &RequestBuilder<'_>,
        _now: Instant,
    ) -> Result<(), ConnectionError> {
        Self::stop_observing(self, exchange, request)
    }

    fn cancel(&mut self, exchange: ExchangeId, _now: Instant) {
        Self::cancel(self, exchange);
    }

    fn ping(&mut self, _now: Instant) -> Result<(), ConnectionError> {
        Self::ping(self)
    }

    fn release(&mut self, release: &Release) -> Result<(), ConnectionError> {
        Self::release(self, release)
    }

    fn abort(&mut self, diagnostic: &str) {
        Self::abort(self, diagnostic);
    }

    fn is_closed(&self) -> bool {
        Self::is_closed(self)
    }

    fn is_settled(&self) -> bool {
        Self::is_settled(self)
    }

    fn requests_outstanding(&self) -> usize {
        Self::requests_outstanding(self)
    }

    fn transmit_octets(&self) -> usize {
        Self::transmit_octets(self)
    }
}

impl Connection for DatagramConnection {
    fn receive(&mut self, octets: &[u8], now: Instant) -> Result<(), ConnectionError> {
        Self::receive(self, octets, now)
    }

    fn poll_event(&mut self) -> Option<ConnectionEvent> {
        Self::poll_event(self)
    }

    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        Self::poll_transmit(self)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Self::poll_timeout(self)
    }

    fn handle_timeout(&mut self, now: Instant) {
        Self::handle_timeout(self, now);
    }

    fn request(&mut self, request: &RequestBuilder<'_>, now: Instant) -> Result<ExchangeId, ConnectionError> {
        Self::request(self, request, now)
    }

    fn respond(&mut self, exchange: ExchangeId, response: &Response, now: Instant) -> Result<(), ConnectionError> {
        Self::respond(self, exchange, response, now)
    }

    fn notify(&mut self, exchange: ExchangeId, response: &Response, now: Instant) -> Result<(), ConnectionError> {
        Self::notify(self, exchange, response, now)
    }

    fn is_observed(&self, exchange: ExchangeId) -> bool {
        Self::is_observed(self, exchange)
    }

    fn stop_observing(
        &mut self,
        exchange: ExchangeId,
        request: &RequestBuilder<'_>,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        Self::stop_observing(self, exchange, request, now)
    }

    fn cancel(&mut self, exchange: ExchangeId, now: Instant) {
        Self::cancel(self, exchange, now);
    }

    fn ping(&mut self, now: Instant) -> Result<(), ConnectionError> {
        Self::ping(self, now)
    }

    fn release(&mut self, _release: &Release) -> Result<(), ConnectionError> {
        Self::release(self)
    }

    fn abort(&mut self, _diagnostic: &str) {
        Self::abort(self);
    }

    fn is_closed(&self) -> bool {
        Self::is_closed(self)
    }

    fn is_settled(&self) -> bool {
        Self::is_settled(self)
    }

    fn requests_outstanding(&self) -> usize {
        Self::requests_outstanding(self)
    }

    fn transmit_octets(&self) -> usize {
        Self::transmit_octets(self)
    }
}
