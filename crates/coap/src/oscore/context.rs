//! A security context (RFC 8613 3): the keys of both directions, what was sent, what was received.

use std::fmt;

use super::error::OscoreError;
use super::keys::{Derivation, IdContext, Key, KeyId, MasterSecret, Nonce};
use super::limits::MASTER_SALT_OCTETS_MAX;
use super::option::OscoreOption;
use super::replay::{EchoValue, ReplayStart, ReplayWindow};
use super::sequence::{Durability, Sequence};

/// What both sides agree on. AES-CCM-16-64-128 and HKDF with SHA-256 are fixed: the ones that every implementation has.
#[derive(Clone, Debug)]
pub struct ContextParameters {
    /// The secret.
    pub master_secret: MasterSecret,
    /// At most [`super::MASTER_SALT_OCTETS_MAX`] octets; empty is none.
    pub master_salt: Vec<u8>,
    /// The ID of this side.
    pub sender_id: KeyId,
    /// The ID of the other side; another one than this side's.
    pub recipient_id: KeyId,
    /// If there is one, it goes with every request.
    pub id_context: Option<IdContext>,
}

impl ContextParameters {
    /// The same as the other side sees it.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { sender_id: self.recipient_id, recipient_id: self.sender_id, ..self.clone() }
    }
}

/// One direction.
pub(crate) struct Endpoint {
    pub(crate) id: KeyId,
    pub(crate) key: Key,
}

pub(crate) enum Replay {
    Window(ReplayWindow),
    /// After a restart, until a request has come with this value (RFC 8613 Appendix B.1.2).
    Recovering(EchoValue),
}

/// The Common IV, which is another one in each context, and no secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContextTag(Nonce);

impl fmt::Debug for ContextTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContextTag")
    }
}

/// A security context, for requests and responses both ways.
///
/// It is never copied: two copies would use one nonce twice.
pub struct SecurityContext {
    pub(crate) sender: Endpoint,
    pub(crate) recipient: Endpoint,
    pub(crate) common_iv: Nonce,
    pub(crate) id_context: Option<IdContext>,
    pub(crate) sequence: Sequence,
    pub(crate) replay: Replay,
}

impl SecurityContext {
    /// A context that was never used before: its secret and salt are of now, as after an `/akma` exchange.
    ///
    /// # Errors
    /// [`OscoreError::InvalidParameter`] for a salt that is too long, or two IDs that are the same.
    pub fn fresh(parameters: &ContextParameters, durability: Durability) -> Result<Self, OscoreError> {
        Self::restored(parameters, durability, 0, ReplayStart::Nothing)
    }

    /// A context that was used before. `sequence` is the highest limit that was given to
    /// [`SecurityContext::sequence_persisted`]; a lower one uses nonces twice, which gives plaintexts away.
    ///
    /// # Errors
    /// As [`SecurityContext::fresh`].
    pub fn restored(
        parameters: &ContextParameters,
        durability: Durability,
        sequence: u64,
        replay: ReplayStart,
    ) -> Result<Self, OscoreError> {
        if parameters.master_salt.len() > MASTER_SALT_OCTETS_MAX {
            return Err(OscoreError::InvalidParameter("length of the master salt"));
        }
        // RFC 8613 3.3: with one ID both directions would have one key, and the nonces of both would meet.
        if parameters.sender_id == parameters.recipient_id {
            return Err(OscoreError::InvalidParameter("Sender ID and Recipient ID are the same"));
        }
        let id_context = parameters.id_context.as_ref().map(IdContext::as_slice);
        let derivation = Derivation::new(&parameters.master_secret, &parameters.master_salt, id_context);
        let endpoint = |id: KeyId| Endpoint { id, key: derivation.key(&id) };
        Ok(Self {
            sender: endpoint(parameters.sender_id),
            recipient: endpoint(parameters.recipient_id),
            common_iv: derivation.common_iv(),
            id_context: parameters.id_context.clone(),
            sequence: Sequence::new(sequence, durability),
            replay: match replay {
                ReplayStart::Nothing => Replay::Window(ReplayWindow::new()),
                ReplayStart::Known(window) => Replay::Window(window),
                ReplayStart::Unknown(echo) => Replay::Recovering(echo),
            },
        })
    }

    /// The ID of this side.
    #[must_use]
    pub const fn sender_id(&self) -> &KeyId {
        &self.sender.id
    }

    /// The ID of the other side, by which a table of contexts is searched.
    #[must_use]
    pub const fn recipient_id(&self) -> &KeyId {
        &self.recipient.id
    }

    /// What is to be written and synced now, in place of any smaller number: sequence numbers below it are then free to
    /// use. It is asked for early; only a message that finds none left fails, with
    /// [`OscoreError::SequenceNotDurable`]. Never with [`Durability::Volatile`].
    #[must_use]
    pub fn sequence_to_persist(&self) -> Option<u64> {
        self.sequence.to_persist()
    }

    /// `limit`, as [`SecurityContext::sequence_to_persist`] or [`OscoreError::SequenceNotDurable`] gave it or more, is on
    /// disk. Say so after the sync, not before.
    pub fn sequence_persisted(&mut self, limit: u64) {
        self.sequence.persisted(limit);
    }

    /// The next sequence number. When it nears [`super::SEQUENCE_NUMBER_MAX`], a new context is due.
    #[must_use]
    pub const fn next_sequence_number(&self) -> u64 {
        self.sequence.next()
    }

    /// The replay window, for [`ReplayStart::Known`] after an orderly stop; none while it is not known itself.
    #[must_use]
    pub const fn replay_window(&self) -> Option<ReplayWindow> {
        match self.replay {
            Replay::Window(window) => Some(window),
            Replay::Recovering(_) => None,
        }
    }

    /// Tells this context from others. A response in another context than its request's would use a nonce twice.
    pub(crate) const fn tag(&self) -> ContextTag {
        ContextTag(self.common_iv)
    }

    /// Whether a message of the peer names this context. `kid` and `kid context` are compared where they are given.
    pub(crate) fn is_named_by(&self, option: &OscoreOption<'_>) -> bool {
        let context = self.id_context.as_ref().map(IdContext::as_slice);
        option.kid.is_none_or(|kid| kid == self.recipient.id.as_slice())
            && option.kid_context.is_none_or(|named| context == Some(named))
    }
}

impl fmt::Debug for SecurityContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityContext")
            .field("sender_id", &self.sender.id)
            .field("recipient_id", &self.recipient.id)
            .field("next_sequence_number", &self.sequence.next())
            .finish_non_exhaustive()
    }
}
