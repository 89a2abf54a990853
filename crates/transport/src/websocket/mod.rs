//! WebSocket below CoAP (RFC 8323 clauses 4 and 8, RFC 6455), for networks that let only port 443 through.
//!
//! ```text
//! TLS-PSK ─▶ GET /.well-known/coap, subprotocol coap ─▶ 101 ─▶ binary messages, one CoAP message each ─▶ Close
//!                  └─ refused: status and what to do, closed        └─ what may not be: Close with its code
//! ```
//!
//! Start from [`WebSocketCarrier`](crate::WebSocketCarrier), which a session drives; [`ServerOpening`] and
//! [`ClientOpening`] are the handshake, [`WebSocket`] the frames, all three without I/O: octets in, octets out. Keys,
//! digests, frames and masks are `tungstenite`'s. What is added here is what a server on the open network needs besides:
//! a frame is judged by its header before anything of it is kept, what is kept is never more than has come, and an idle
//! connection keeps next to nothing.
//!
//! No extension is offered or taken, so nothing is ever decompressed.

mod frames;
mod opening;

pub use frames::{FRAGMENTS_MAX, WebSocket, WebSocketError};
pub use opening::{ClientOpening, ServerOpening, UpgradeError, UpgradeRefusal, WELL_KNOWN_PATH};
