//! Every fixed limit of the crate, with what happens when it is reached. What a deployment chooses is in
//! [`crate::SessionConfig`].

use std::time::Duration;

/// Octets of content in one record (RFC 6347 4.1, RFC 9147 4). A longer record is dropped.
pub const RECORD_CONTENT_OCTETS_MAX: usize = 1 << 14;
/// Smallest value of [`crate::SessionConfig::datagram_octets_max`]. Below it a ClientHello would not fit in one datagram;
/// one of DTLS 1.3, which has identity and cookie in it, needs more.
pub const DATAGRAM_OCTETS_MIN: usize = 256;
/// Default of [`crate::SessionConfig::datagram_octets_max`]: the minimum MTU of IPv6 less the headers of IPv6 and UDP.
pub const DATAGRAM_OCTETS_DEFAULT: usize = 1232;
/// Largest value of [`crate::SessionConfig::datagram_octets_max`].
pub const DATAGRAM_OCTETS_MAX: usize = 16_384;
/// After [`DATAGRAM_FALLBACK_TIMEOUTS`] retransmissions without an answer a flight goes in datagrams of at most this size
/// (RFC 6347 4.1.1.1): what any path of IPv4 carries. A ClientHello stays whole, as a server without memory wants it.
pub const DATAGRAM_OCTETS_FALLBACK: usize = 548;
/// See [`DATAGRAM_OCTETS_FALLBACK`].
pub const DATAGRAM_FALLBACK_TIMEOUTS: u32 = 3;
/// Octets of a Connection ID, of either side. A peer that wants a longer one is answered illegal_parameter.
pub const CONNECTION_ID_OCTETS_MAX: usize = 32;
/// Octets of one handshake message, whatever its header announces. Fragments of a longer one are dropped; after the
/// handshake of DTLS 1.3, where it would be sent for ever, it ends the session.
pub const HANDSHAKE_MESSAGE_OCTETS_MAX: usize = 2048;
/// Handshake messages ahead of the next expected one that are put together at once. Fragments further ahead are dropped.
pub const REASSEMBLY_MESSAGES_MAX: usize = 8;
/// Octets of all messages being put together. A message that would exceed it is dropped; its retransmission may find room.
pub const REASSEMBLY_OCTETS_MAX: usize = 4096;
/// Holes of one message being put together, plus one. A fragment that would make more is dropped.
pub const FRAGMENT_RANGES_MAX: usize = 16;
/// Protected records kept until their key is there. Further ones are dropped; the peer sends its flight again.
pub const EARLY_RECORDS_MAX: usize = 4;
/// Octets of one record that is kept until its key is there. A longer one is dropped.
pub const EARLY_RECORD_OCTETS_MAX: usize = 256;
/// Octets of a PSK identity. A longer one is answered unknown_psk_identity.
pub const PSK_IDENTITY_OCTETS_MAX: usize = 512;
/// Octets of a pre-shared key; [`crate::PresharedKey::new`] refuses a longer one.
pub const PSK_OCTETS_MAX: usize = 64;
/// Octets of a pre-shared key at least.
pub const PSK_OCTETS_MIN: usize = 16;
/// Octets of a cookie that a client repeats: what the field can hold.
pub const COOKIE_OCTETS_MAX: usize = 255;
/// Octets of a host name in server_name.
pub const SERVER_NAME_OCTETS_MAX: usize = 255;
/// HelloVerifyRequests that a client follows in one handshake; the next one ends it.
pub const HELLO_VERIFY_REQUESTS_MAX: u8 = 4;
/// Datagrams that wait in `poll_transmit`. `send` answers [`crate::Error::TransmitQueueFull`]; a retransmission is left
/// out, or what of it finds no room; its timer goes on.
pub const TRANSMITS_MAX: usize = 64;
/// Events that wait in `poll_event`. Application data beyond are dropped, as a full socket buffer would.
pub const EVENTS_MAX: usize = 256;
/// Records behind the newest one that are still taken, once each (RFC 6347 4.1.2.6 demands 32 and prefers 64).
pub const REPLAY_WINDOW_RECORDS: u64 = 128;
/// Records that one ACK of DTLS 1.3 names: the newest that came. Others are named in later ones, or come again.
pub const ACK_RECORDS_MAX: usize = 32;
/// Records of a flight that are remembered, the newest, so that an ACK tells what need not be sent again.
pub const SENT_RECORDS_MAX: usize = 64;
/// An incomplete flight of the peer is acknowledged after this part of the first interval (RFC 9147 7.1).
pub const ACK_DELAY_DIVISOR: u32 = 4;
/// First intervals between retransmissions after which a server of DTLS 1.3 that has data of the client no longer reads its
/// Finished. What looks like one is still answered: [`FINISHED_ANSWERS_MAX`].
pub const FINISHED_HELD_INTERVALS: u32 = 8;
/// ACKs with which a server of DTLS 1.3 answers records of the handshake's epoch when it does not read that any more. Further
/// ones are dropped. A client sends its Finished less often.
pub const FINISHED_ANSWERS_MAX: u8 = 32;
/// How long the peer's records of the epoch before are read after its first one of a new epoch (RFC 9147 4.2.1), unless
/// another epoch comes.
pub const PREVIOUS_EPOCH_HELD: Duration = Duration::from_secs(120);
/// First interval between retransmissions (RFC 6347 4.2.4.1); it doubles each time.
pub const RETRANSMIT_FIRST: Duration = Duration::from_secs(1);
/// Longest interval between retransmissions (RFC 6347 4.2.4.1).
pub const RETRANSMIT_MAX: Duration = Duration::from_secs(60);
/// The peer's retransmissions make us retransmit at most once in this part of the first interval.
pub const RETRANSMIT_ON_DUPLICATE_DIVISOR: u32 = 2;
/// How long a server keeps its Finished for a client that did not get it (RFC 6347 4.2.4: twice the maximum segment
/// lifetime), unless application data of the client show before that it did. With DTLS 1.3: how long it acknowledges the
/// client's Finished again; after the client's first data only for [`FINISHED_HELD_INTERVALS`].
pub const FINAL_FLIGHT_HELD: Duration = Duration::from_secs(240);
/// A cookie is valid in the period in which it was made and in the next one.
pub const COOKIE_PERIOD: Duration = Duration::from_secs(60);
/// Octets that may be sent to an unproven new address of the peer, for each authentic octet that came from it.
pub const PROBE_OCTETS_FACTOR: usize = 3;
/// Octets of a frozen session at most.
pub const FROZEN_OCTETS_MAX: usize = 300;
/// Octets of a sealed session at most, without what is attached.
pub const SEALED_OCTETS_MAX: usize = 350;
/// Octets that are attached to a sealed session at most. Beyond, it is not sealed: [`crate::Error::FrozenForm`].
pub const SEALED_ATTACHED_OCTETS_MAX: usize = 8_192;
/// Sealed forms that one start of a server opens: each is remembered, about 30 octets, so that none is opened twice.
/// Beyond, [`crate::Error::OpenedTooMany`]: those clients make new handshakes.
pub const SEALED_OPENED_MAX: usize = 1 << 20;
/// Records that a session may send after it was sealed, until it is sealed anew and that form is stored: as far as its
/// counter is advanced for each start of the server when the sealed form is opened.
pub const SEALED_RECORDS_MAX: u64 = 1 << 16;
/// As [`SEALED_RECORDS_MAX`], with DTLS 1.3: a record tells 16 bits of its number, from which the peer must find the rest
/// although the counter was advanced.
pub const SEALED_RECORDS_MAX_DTLS13: u64 = 1 << 12;
/// Starts of the server after which a sealed form of DTLS 1.3 is still opened, and over which a session updates its write
/// key: further on the peer would not find the numbers. Beyond, [`crate::Error::WriteKeyExhausted`].
pub const SEALED_STARTS_MAX_DTLS13: u64 = 7;
