//! An MQTT client of the broker.

use std::collections::VecDeque;

use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use super::packet::{self, Packet};
use crate::BenchError;
use crate::peer::{Event, Session};
use crate::wire::Wire;

/// A persistent session, subscribed to the user's own topic.
pub(crate) struct MqttSession {
    wire: Wire<SslStream<TcpStream>>,
    next: u16,
    /// What came before the session was ready.
    early: VecDeque<Event>,
}

impl MqttSession {
    pub(super) async fn open(stream: SslStream<TcpStream>, user: usize) -> Result<Self, BenchError> {
        let mut session = Self { wire: Wire::new(stream), next: 0, early: VecDeque::new() };
        packet::connect(session.wire.outbound(), &format!("ue-{user}"), false);
        match session.packet().await? {
            // A session that is there already is subscribed.
            Packet::ConnectAcknowledgement { code: 0, session_present: true } => return Ok(session),
            Packet::ConnectAcknowledgement { code: 0, session_present: false } => {}
            other => return Err(BenchError::Protocol(format!("{other:?} after CONNECT"))),
        }
        packet::subscribe(session.wire.outbound(), 1, &topic(user));
        loop {
            match session.packet().await? {
                Packet::SubscribeAcknowledgement => return Ok(session),
                packet => {
                    let event = session.taken(packet);
                    session.early.extend(event);
                }
            }
        }
    }

    fn taken(&mut self, packet: Packet) -> Option<Event> {
        match packet {
            Packet::PublishAcknowledgement(identifier) => Some(Event::Taken(u64::from(identifier))),
            Packet::Publish { identifier, payload } => {
                packet::publish_acknowledgement(self.wire.outbound(), identifier);
                Some(Event::Received(payload))
            }
            _ => None,
        }
    }

    async fn packet(&mut self) -> Result<Packet, BenchError> {
        loop {
            if let Some(packet) = packet::take(self.wire.inbound())? {
                return Ok(packet);
            }
            self.wire.turn().await?;
        }
    }
}

impl Session for MqttSession {
    fn send(&mut self, to: usize, payload: &[u8]) -> Result<u64, BenchError> {
        // Zero is not allowed; with fewer than 65,535 in flight none is used twice.
        self.next = self.next.checked_add(1).unwrap_or(1);
        packet::publish(self.wire.outbound(), self.next, &topic(to), payload);
        Ok(u64::from(self.next))
    }

    async fn event(&mut self) -> Result<Event, BenchError> {
        if let Some(event) = self.early.pop_front() {
            return Ok(event);
        }
        loop {
            let packet = self.packet().await?;
            if let Some(event) = self.taken(packet) {
                return Ok(event);
            }
        }
    }

    async fn close(mut self) -> Result<(), BenchError> {
        packet::disconnect(self.wire.outbound());
        self.wire.finish().await
    }
}

fn topic(user: usize) -> String {
    format!("ue/{user}")
}
