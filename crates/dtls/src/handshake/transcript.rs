//! The hash over the handshake's messages (RFC 6347 4.2.6): each as if it had come in one fragment, without the first
//! ClientHello and HelloVerifyRequest.

use aws_lc_rs::digest;

use crate::handshake::Message;

#[derive(Clone)]
pub(crate) struct Transcript(digest::Context);

impl Transcript {
    pub(crate) fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    pub(crate) fn add(&mut self, message: &Message) {
        self.0.update(&message.encode());
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(self.0.clone().finish().as_ref()) {
            *to = *from;
        }
        hash
    }
}
