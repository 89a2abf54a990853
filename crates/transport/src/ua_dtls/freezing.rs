//! Sessions that are idle, as small values.
//!
//! ```text
//! live ── nothing came or went for a time, nothing is under way ──> frozen: keys, counters, window, IDs, address
//!   ^                                                                  │
//!   └───── an authentic record with its Connection ID; something is sent
//!
//! frozen ── sealed ──> held: it says and takes nothing ── its form is stored: dropped ──> gone without a word
//!   ^                     │
//!   └── its form is not stored
//! ```
//!
//! A frozen session is where it was in the table, under its Connection ID, and whoever has it keeps it; its connection,
//! queues and entry by address are gone. A record that is not authentic, or a copy, is judged and leaves it frozen, so that
//! nobody but its peer wakes it. One whose records do not bear a Connection ID of ours is never frozen: only its address
//! tells whose they are, and what is kept for that would be no small value any more.
//!
//! While a session is held nothing is written with its keys, since whoever opens its form goes on with the same record number.
//! It goes on itself only where nobody will ever open that form.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use dtls::{Frozen, HandedOver, SealingKey};

use super::peer::{Live, Peer, Surroundings};
use crate::metrics::InProgress;

/// A session's state.
pub(super) enum Body {
    Live(Box<Live>),
    /// Counted while it is there.
    Frozen(Frozen, InProgress),
    /// As that, and sealed: until it is known whether its form is stored, its peer is neither answered nor heard.
    Held(HandedOver, InProgress),
    /// It could not be thawed, which does not happen to a value that was frozen here.
    Lost,
}

impl Body {
    pub(super) fn is_frozen(&self) -> bool {
        matches!(self, Self::Frozen(..))
    }

    pub(super) fn as_live(&self) -> Option<&Live> {
        match self {
            Self::Live(live) => Some(live),
            Self::Frozen(..) | Self::Held(..) | Self::Lost => None,
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Live(live) => Some(live.connection.peer_address()),
            Self::Frozen(frozen, _) => frozen.peer_address(),
            Self::Held(..) | Self::Lost => None,
        }
    }

    /// The session, thawed if it was frozen; none if that failed.
    pub(super) fn live(&mut self, around: &Surroundings, now: Instant) -> Option<&mut Live> {
        if self.is_frozen()
            && let Self::Frozen(frozen, _) = std::mem::replace(self, Self::Lost)
        {
            match frozen.thaw_server(Arc::clone(&around.config), now) {
                Ok(connection) => *self = Self::Live(Box::new(Live::new(connection))),
                Err(error) => tracing::error!(%error, "a frozen DTLS session is lost"),
            }
            around.metrics.dtls_thawed(matches!(self, Self::Live(_)));
        }
        match self {
            Self::Live(live) => Some(live),
            Self::Frozen(..) | Self::Held(..) | Self::Lost => None,
        }
    }

    /// Freezes it, unless it is under way or cannot be; whether it is frozen.
    pub(super) fn freeze(&mut self, around: &Surroundings) -> bool {
        let idle = match self {
            Self::Live(live) => {
                !live.connection.connection_id().is_empty()
                    && live.inbound.is_empty()
                    && !live.moved
                    && live.key_needed.is_none()
                    && live.ended.is_none()
            }
            Self::Frozen(..) => return true,
            Self::Held(..) | Self::Lost => false,
        };
        if !idle {
            return false;
        }
        let Self::Live(live) = std::mem::replace(self, Self::Lost) else { return false };
        *self = match live.connection.freeze() {
            Ok(frozen) => Self::Frozen(frozen, around.metrics.dtls_frozen()),
            Err((connection, _)) => Self::Live(Box::new(Live::new(*connection))),
        };
        self.is_frozen()
    }

    /// Has one go on that is held.
    fn release(&mut self) {
        *self = match std::mem::replace(self, Self::Lost) {
            Self::Held(held, counted) => Self::Frozen(held.take_back(), counted),
            other => other,
        };
    }
}

impl Peer {
    /// See the module; whether it is frozen now.
    pub(super) fn freeze(&self) -> bool {
        self.state().body.freeze(&self.around)
    }

    /// Holds a session, so that another start of the server goes on with what is returned, and what is attached. None leaves it
    /// as it was: it is under way, or cannot be sealed.
    pub(super) fn seal(&self, key: &SealingKey, attached: &[u8]) -> Option<Vec<u8>> {
        let mut state = self.state();
        if !state.body.freeze(&self.around) {
            return None;
        }
        let (body, sealed) = match std::mem::replace(&mut state.body, Body::Lost) {
            Body::Frozen(frozen, counted) => match key.hand_over(frozen, attached) {
                // Nothing is sent with its keys, whoever still has it, nor taken that the form would not know.
                Ok((sealed, held)) => (Body::Held(held, counted), Some(sealed)),
                Err((frozen, _)) => (Body::Frozen(frozen, counted), None),
            },
            other => (other, None),
        };
        state.body = body;
        sealed
    }

    /// Has a session go on that was sealed. Its form must be such that nobody will ever open it: else nonces repeat.
    pub(super) fn unseal(&self) {
        self.state().body.release();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use dtls::{ClientConfig, Connection, ConnectionId, Event, Incoming, Listener, PresharedKey, ServerConfig};
    use tokio::net::UdpSocket;

    use super::*;
    use crate::metrics::TransportMetrics;
    use crate::ua_dtls::peer::Inbound;

    /// The client's end of a session, which no server thaws.
    fn frozen_client() -> Frozen {
        let (now, at) = (Instant::now(), SocketAddr::from(([127, 0, 0, 1], 1)));
        let listener = Listener::new(Arc::new(ServerConfig::default()), now).unwrap();
        let config = Arc::new(ClientConfig::new(b"identity"));
        let (mut client, mut server) = (Connection::client(config, now, at).unwrap(), None::<Connection>);
        let key = PresharedKey::new(&[1; 32]).unwrap();
        loop {
            let mut still = true;
            while let Some(sent) = client.poll_transmit() {
                still = false;
                match &mut server {
                    Some(server) => drop(server.handle_datagram(now, at, &sent.payload)),
                    None => match listener.handle_datagram(now, at, &sent.payload) {
                        Incoming::Reply(reply) => drop(client.handle_datagram(now, at, &reply.payload)),
                        Incoming::Hello(hello) => {
                            server = Some(hello.accept(now, ConnectionId::random(8).unwrap()).unwrap());
                        }
                        _ => panic!("a ClientHello"),
                    },
                }
            }
            let (server_event, client_event) = (server.as_mut().and_then(Connection::poll_event), client.poll_event());
            if let Some(Event::KeyNeeded(_)) = server_event {
                server.as_mut().unwrap().provide_key(now, &key).unwrap();
            }
            if let Some(Event::KeyNeeded(_)) = client_event {
                client.provide_key(now, &key).unwrap();
            }
            still &= server_event.is_none() && client_event.is_none();
            while let Some(sent) = server.as_mut().and_then(Connection::poll_transmit) {
                still = false;
                client.handle_datagram(now, at, &sent.payload);
            }
            if still {
                break;
            }
        }
        client.freeze().map_err(|(_, error)| error).unwrap()
    }

    /// What the table and the frozen form take beside it is in the reference.
    #[test]
    fn a_frozen_session_is_as_small_as_documented() {
        assert_eq!(size_of::<Body>(), 32);
        assert_eq!(size_of::<Peer>(), 72);
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_session_that_is_lost_is_told_its_end() {
        let around = Arc::new(Surroundings {
            socket: Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap()),
            metrics: TransportMetrics::default(),
            inbound_max: 1,
            config: Arc::default(),
        });
        let body = Body::Frozen(frozen_client(), around.metrics.dtls_frozen());
        let peer = Peer::of(body, [8; 8], around);
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        assert!(peer.poll_inbound(&mut context).is_pending());
        peer.handle(Instant::now(), SocketAddr::from(([127, 0, 0, 1], 1)), b"a record");
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(matches!(peer.poll_inbound(&mut context), Poll::Ready(Inbound::Ended(_))));
    }
}
