//! Application Server (TS 23.554, TS 29.538): registers at an MSGin5G Server, sends, receives each message once, and subscribes to
//! Messaging Topics.
//!
//! Start from [`ApplicationServerConfig`] and [`ApplicationServer::open`]. [`Access`] says how the server is reached: inside the
//! operator's domain with a certificate or with tokens of the NRF, outside it through the NEF, or through CAPIF as an onboarded
//! [`Invoker`](sbi::capif::invoker::Invoker). What is sent and received is the same by each way.
//!
//! ```no_run
//! use application::{Access, Acceptance, ApplicationServer, ApplicationServerConfig, Incoming, Senders};
//! use message::Address;
//! use sbi::{CertificateFiles, PeerName};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let tls = CertificateFiles {
//!         certificate: "/etc/billing/billing.pem".into(),
//!         key: "/etc/billing/billing.key".into(),
//!         ca: "/etc/billing/operator-ca.pem".into(),
//!         crl: None,
//!     };
//!     let access = Access::Nef { nef: "https://nef.example.com".to_owned(), client_id: "billing".to_owned() };
//!     let nef = PeerName { dns_name: Some("nef.example.com".to_owned()), ..PeerName::default() };
//!     let mut config =
//!         ApplicationServerConfig::new("billing@example.net".parse()?, tls, access, Senders::Named(vec![nef]));
//!     config.listen = ([0, 0, 0, 0], 8443).into();
//!     config.host = Some("billing.example.net".to_owned());
//!
//!     let (billing, mut incoming) = ApplicationServer::open(config).await?;
//!     billing.register().await?;
//!
//!     let mut tariff = billing.message(Address::ue(&"meter-7@example.com".parse()?), "tariff 2");
//!     tariff.store_and_forward = true;
//!     match billing.send(&tariff).await? {
//!         Acceptance::Delivered | Acceptance::Stored => println!("safe"),
//!         other => println!("not delivered: {other:?}"),
//!     }
//!     while let Some(event) = incoming.next().await {
//!         match event {
//!             Incoming::Message(message) => {
//!                 println!("{} octets from {}", message.content().payload.len(), message.content().originator);
//!                 let report = message.success_report();
//!                 message.accept(); // from here on it is ours
//!                 if let Some(report) = report {
//!                     billing.report(report).await?;
//!                 }
//!             }
//!             Incoming::Report(report) => report.accept(),
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # What it promises
//!
//! **Sending.** [`ApplicationServer::send`] returns the server's promise: delivered, stored on its disk, or failed with a cause.
//! Where no answer came ([`ApplicationError::is_transient`]), the message's fate is open: send the same
//! [`Message`](message::Message) again, to whose Message ID the server gives the same answer, and the recipient gets it once.
//!
//! **Receiving.** A message belongs to the application when [`Received::accept`] was called. Only then is it acknowledged, and
//! the sender told *delivered*. Until then the server has it: a [`Received`] that is dropped, or not decided upon within
//! [`Limits::decision_milliseconds`], is answered 503 and comes again. What was decided upon is remembered by originator and
//! Message ID in memory and not handed over again; an application that must not do its work twice over a restart keeps the
//! Message ID with its results.
//!
//! **Topics.** [`ApplicationServer::subscribe`] has messages to topics come, too; [`ApplicationServer::subscribe_to_topic_list`]
//! tells which topics there are, as [`Incoming::Topics`]. Both subscriptions are the server's, last until they end there, and are
//! not made anew by [`ApplicationServer::register`].
//!
//! All limits are members of [`Limits`], with what happens when they are hit.
#![forbid(unsafe_code)]

mod acceptance;
mod access;
mod application_server;
mod by_capif;
mod config;
mod desk;
mod error;
mod hand_over;
mod incoming;
mod topics;

pub use acceptance::Acceptance;
pub use access::Access;
pub use application_server::ApplicationServer;
pub use config::{ApplicationServerConfig, Limits, Senders};
pub use error::ApplicationError;
pub use incoming::{Incoming, IncomingStream, Received};
pub use topics::{TopicChanges, TopicListSubscription};
