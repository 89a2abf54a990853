//! What waits to be sent: octets of a stream, or whole messages where something below keeps them apart.

use std::collections::VecDeque;

/// See the module.
#[derive(Debug)]
pub(super) enum Transmit {
    /// Messages that tell their length themselves, one after the other.
    Stream(Vec<u8>),
    /// One message for each WebSocket message, and their octets in all.
    Messages { queue: VecDeque<Vec<u8>>, octets: usize },
}

impl Transmit {
    /// Octets that wait.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Stream(octets) => octets.len(),
            Self::Messages { octets, .. } => *octets,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All octets of a stream, or the next message.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Stream(octets) => (!octets.is_empty()).then(|| std::mem::take(octets)),
            Self::Messages { queue, octets } => {
                let message = queue.pop_front()?;
                *octets = octets.saturating_sub(message.len());
                if queue.is_empty() {
                    *queue = VecDeque::new();
                }
                Some(message)
            }
        }
    }

    /// Lets `write` append one message; nothing is kept of one that fails.
    pub(super) fn append<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Stream(octets) => write(octets),
            Self::Messages { queue, octets } => {
                let mut message = Vec::new();
                write(&mut message)?;
                *octets += message.len();
                queue.push_back(message);
                Ok(())
            }
        }
    }
}
