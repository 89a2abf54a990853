//! MSGin5G Client (TS 23.554, TS 24.538): registers with the keys of a USIM, sends, and receives each message once.
//!
//! Start from [`Client`] and [`KeySource`]. A key source yields the AKMA keys that a primary authentication left behind:
//! [`SoftUsim`] runs one itself, [`FileKeySource`] reads a file, [`CommandKeySource`] asks a program, such as one that
//! talks to a modem; [`StoredKeySource`] keeps what another one yields.
//!
//! ```no_run
//! use client::{Client, ClientConfig, FileKeySource, Incoming, Outcome, OutgoingMessage};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut config = ClientConfig::new("127.0.0.1:5684", "msgin5g.lab.example".parse()?, "meter-1@lab.example".parse()?);
//!     config.state_dir = Some("meter-1.state".into());
//!     let (client, mut incoming) = Client::connect(config, FileKeySource::new("akma.json")).await?;
//!
//!     let reading = OutgoingMessage::to_application_server(&"billing@lab.example".parse()?, "21.5 kWh");
//!     match client.send(reading.store_and_forward(None)).await? {
//!         Outcome::Delivered | Outcome::Stored => println!("safe"),
//!         other => println!("not delivered: {other:?}"),
//!     }
//!     while let Some(event) = incoming.next().await {
//!         match event {
//!             Incoming::Message(message) => {
//!                 println!("{} octets from {}", message.content().payload.len(), message.content().originator);
//!                 message.accept().await?; // from here on it is ours, and never comes again
//!             }
//!             Incoming::Report(report) => report.accept().await?,
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # What it promises
//!
//! **Sending.** [`Client::send`] returns when the server has made its promise: delivered, stored on its disk, or failed
//! with a cause. A connection lost in between changes nothing: the message is sent again under the same Message ID, to
//! which the server gives the same answer. Messages for one recipient are sent in the order of the calls. What is larger
//! than one segment is sent as segments, and its outcome is that of the whole; a segmented message that was stored is
//! kept for a while in case its recipient misses a segment.
//!
//! **Receiving.** A message belongs to the application when [`Received::accept`] returns. Only then is it acknowledged to
//! the server, and the sender gets the report it asked for. Until then the server keeps it. What was accepted is
//! remembered by originator and Message ID, on disk if [`ClientConfig::state_dir`] is set, and not handed over again.
//! What remains is a crash between the application's own work and `accept`: an application that must not do its work
//! twice keeps the Message ID with its results. A message that comes as segments is handed over once, when it is complete;
//! what was acknowledged of it before is on disk, or can be asked for again. Messages and reports that come several in one
//! are handed over one by one.
//!
//! **Keys.** K_AKMA and K_AF are wiped from memory when dropped, and never printed. If the server does not take the keys,
//! the source is asked for others once, and again after an interval.
//!
//! **Connection.** A lost connection is made again after a pause that doubles up to a minute and is drawn evenly from its
//! whole length, so that many clients do not come back at once.
//!
//! **Configuration.** [`ConfigurationFunction`] tells a client that has nothing but its USIM who it is and where its server
//! is ([`ClientConfig::from_ue_configuration`]), and when that changes.
//!
//! **Several applications.** [`ApplicationInterface`] shares one client among the applications of a machine.
//!
//! All limits are members of [`ClientLimits`], with what happens when they are hit.
#![forbid(unsafe_code)]

mod aggregation;
mod backoff;
mod bootstrap;
mod bundle;
mod client;
mod config;
mod driver;
mod error;
mod establish;
mod hand_over;
mod https;
mod incoming;
mod journal;
mod journal_writer;
mod key_source;
mod limits;
mod local;
mod outbound;
mod reassembly;
mod remembered;
mod requests;
mod segmented;
mod session;
mod status;
mod subscriptions;
mod ue_configuration;

pub use aggregation::AggregationPolicy;
pub use bootstrap::{ConfigurationFunction, FollowedConfiguration, RetrievedConfiguration};
pub use client::Client;
pub use config::{ClientConfig, PATH_DEFAULT, Transport};
pub use error::ClientError;
pub use incoming::{Incoming, IncomingStream, Received};
pub use key_source::{
    AkmaMaterial, COMMAND_OUTPUT_OCTETS_MAX, CommandKeySource, FileKeySource, KEY_FILE_OCTETS_MAX, KeySource,
    KeySourceError, REFUSED_VARIABLE, SharedKeySource, SoftUsim, SoftUsimConfig, StoredKeySource,
};
pub use limits::ClientLimits;
pub use local::{
    APPLICATION_MESSAGE_ID_OCTETS_MAX, ApplicationConfig, ApplicationInterface, ApplicationToken, ApplicationsConfig,
    DestinationPattern, LocalLimits, SocketAccess, TOKEN_OCTETS_MAX, TOKEN_OCTETS_MIN, WhenAway,
    check_application_request,
};
pub use outbound::{Outcome, OutgoingMessage, Subscription};
pub use status::{ClientState, ClientStatus};
pub use ue_configuration::{ServerAddress, UE_CONFIGURATION_OCTETS_MAX, UeConfiguration, UeConfigurationError};
