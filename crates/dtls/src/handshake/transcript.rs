//! The hash over the handshake's messages: of DTLS 1.2 (RFC 6347 4.2.6) each as if it had come in one fragment, without the
//! first ClientHello and HelloVerifyRequest; of DTLS 1.3 (RFC 9147 5.2, RFC 8446 4.4.1) each as TLS 1.3 would send it.

use aws_lc_rs::digest;

use crate::handshake::{Message, MessageType};

#[derive(Clone)]
pub(crate) struct Transcript(digest::Context);

impl Transcript {
    pub(crate) fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    pub(crate) fn add(&mut self, message: &Message) {
        self.0.update(&message.encode());
    }

    /// In the form of DTLS 1.3.
    pub(crate) fn add_plain(&mut self, message: &Message) {
        self.0.update(&message.encode_plain());
    }

    /// In the form of DTLS 1.3, without the last `octets` octets.
    pub(crate) fn add_plain_without(&mut self, message: &Message, octets: usize) {
        let encoded = message.encode_plain();
        self.0.update(encoded.get(..encoded.len().saturating_sub(octets)).unwrap_or_default());
    }

    /// After a HelloRetryRequest the first ClientHello stands as its hash (RFC 8446 4.4.1).
    pub(crate) fn of_hello_hash(hash: [u8; 32]) -> Self {
        let mut transcript = Self::new();
        transcript.add_plain(&Message { message_type: MessageType::MESSAGE_HASH, sequence: 0, body: hash.to_vec() });
        transcript
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(self.0.clone().finish().as_ref()) {
            *to = *from;
        }
        hash
    }
}
