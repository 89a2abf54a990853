//! The handshake of DTLS 1.3 with an external pre-shared key and an ephemeral exchange (RFC 9147 5, RFC 8446 2.2, 4.2.11).
//!
//! ```text
//! client                                          server
//! ·· the driver gives the key ··
//! ClientHello                    ──────────▶
//!                                ◀──────────      HelloRetryRequest + cookie    (Listener: nothing is kept)
//! ClientHello + cookie           ──────────▶                                    ProvenHello::accept
//!                                                 ·· the driver gives the key, the binder is verified ··
//!                                ◀──────────      ServerHello, [EncryptedExtensions, Finished]    epoch 2
//! [Finished]                     ──────────▶                                                      epoch 2
//!                                ◀──────────      [ACK]                                           epoch 3
//! [application data]             ◀─────────▶                                                      epoch 3
//! [KeyUpdate]                    ──────────▶                                                      epoch n
//!                                ◀──────────      [ACK]
//! [application data]             ──────────▶                                                      epoch n + 1
//! ```
//!
//! A client that also offers DTLS 1.2 goes on as [`crate::v12::Client`] if the server wants that.

pub(crate) mod ack;
mod client;
pub(crate) mod schedule;
mod server;

pub(crate) use client::{Client, Step};
pub(crate) use server::{Negotiated, Server, hello_retry_request, select};

use crate::connection::Role;
use crate::connection::core::Core;
use crate::error::Error;
use crate::handshake::MessageType;
use crate::handshake::flight::FlightItem;
use crate::handshake::hello::RANDOM_OCTETS;
use crate::handshake::transcript::Transcript;
use crate::v13::schedule::TrafficSecret;

/// Our next message, which the transcript takes in.
fn message(
    core: &mut Core,
    transcript: &mut Transcript,
    epoch: u16,
    message_type: MessageType,
    body: Vec<u8>,
) -> FlightItem {
    let item = core.message(epoch, message_type, body);
    if let FlightItem::Handshake { message, .. } = &item {
        transcript.add_plain(message);
    }
    item
}

/// The secrets of both directions.
struct Secrets {
    client: TrafficSecret,
    server: TrafficSecret,
}

impl Secrets {
    fn derive(traffic: impl Fn(Role) -> Result<TrafficSecret, Error>) -> Result<Self, Error> {
        Ok(Self { client: traffic(Role::Client)?, server: traffic(Role::Server)? })
    }

    fn log(&self, core: &Core, labels: (&str, &str), client_random: &[u8; RANDOM_OCTETS]) {
        if let Some(key_log) = &core.config.session().key_log {
            key_log.log(labels.0, client_random, self.client.expose());
            key_log.log(labels.1, client_random, self.server.expose());
        }
    }
}

/// The names of the secrets in a key log.
const LOG_HANDSHAKE: (&str, &str) = ("CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET");
const LOG_APPLICATION: (&str, &str) = ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0");
