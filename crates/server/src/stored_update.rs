//! Stored message update (TS 23.554 clause 8.3.6.1): the originator of a message that waits on disk gives it another
//! expiration time, or has it discarded.
//!
//! The recipient may come back at any moment, so the pipeline is asked first. A message that is to be discarded is claimed
//! as an expired one is: what is on its way to the recipient cannot be called back and counts as not stored. One that gets
//! another expiry stays deliverable throughout, and only the sweep of expired messages is kept off it meanwhile. One whose
//! time is over is expired, swept or not, and counts as not stored.

use std::sync::Arc;

use message::{Address, FailureCause, MessageId, StoredMessageUpdate};
use store::{Position, StoreError};
use time::OffsetDateTime;

use crate::core::Core;
use crate::deduplication::Key;
use crate::delivery::{Answer, Reply};
use crate::fan_out;
use crate::registry::Party;
use crate::sync::lock;

/// Stored copies of one message looked at together: a message to a group has one for each member that is away.
const BATCH: usize = 256;

impl Core {
    /// Updates or discards what `from` had stored, and answers: `DELY_STORED` for an update, 2.02 for a discard, 4.04
    /// `MESSAGE_NOT_STORED` if nothing of that name waits. Only `from`'s own messages are ever looked at.
    pub(crate) fn route_update(self: &Arc<Self>, from: &Arc<Party>, update: StoredMessageUpdate, reply: Reply) {
        if update.originator != from.address {
            return self.refuse_forged(from, &update.originator, reply);
        }
        if let Err(cause) = self.within_rate(from) {
            return self.refuse(reply, cause);
        }
        if !self.request_opened() {
            return self.refuse(reply, FailureCause::Overloaded);
        }
        let (core, from) = (Arc::clone(self), Arc::clone(from));
        self.tasks.spawn(async move {
            let answer = core.update(&from, &update).await;
            core.request_closed();
            core.metrics.answered(&answer);
            reply.give(answer);
        });
    }

    async fn update(self: &Arc<Self>, from: &Party, update: &StoredMessageUpdate) -> Answer {
        let latest = OffsetDateTime::now_utc().saturating_add(self.expiry_max());
        let expires_at = update.expiration_time.map(|at| at.min(latest));
        // Those that have no copy yet first, so that they get none while the copies on disk are looked through.
        let waiting = match expires_at {
            None => fan_out::discard(self, &update.originator, &update.message_id).await,
            Some(_) => Some(0),
        };
        let Some(waiting) = waiting else { return Answer::Failed(FailureCause::StorageFailed) };
        let changed = match self.change_all(update, expires_at).await {
            Ok(changed) => changed + waiting,
            Err(error) => {
                tracing::error!(originator = %update.originator, message_id = %update.message_id, %error, "stored message not updated");
                return Answer::Failed(FailureCause::StorageFailed);
            }
        };
        if changed == 0 {
            return Answer::Failed(FailureCause::MessageNotStored);
        }
        if expires_at.is_some() {
            self.metrics.stored_updated(changed);
            return Answer::Stored;
        }
        self.metrics.stored_discarded(changed);
        lock(&from.recent).discarded(Key::message(&update.message_id));
        Answer::Discarded
    }

    /// Discards copies of a message to many that came to disk after its originator discarded the others.
    pub(crate) fn discard_late(self: &Arc<Self>, originator: &Address, message_id: &MessageId) {
        let (core, originator, message_id) = (Arc::clone(self), originator.clone(), message_id.clone());
        self.tasks.spawn(async move {
            let update = StoredMessageUpdate { originator, message_id, expiration_time: None };
            match core.change_all(&update, None).await {
                Ok(discarded) => core.metrics.stored_discarded(discarded),
                Err(error) => {
                    tracing::error!(originator = %update.originator, message_id = %update.message_id, %error, "copies not discarded");
                }
            }
        });
    }

    /// How many copies were changed.
    async fn change_all(
        self: &Arc<Self>,
        update: &StoredMessageUpdate,
        expires_at: Option<OffsetDateTime>,
    ) -> Result<usize, StoreError> {
        let (mut changed, mut after) = (0, None);
        loop {
            let found = self.store.find_stored(&update.originator, &update.message_id, after, BATCH).await?;
            for (recipient, position) in &found {
                let done = match expires_at {
                    Some(expires_at) => self.renew(recipient, *position, expires_at).await?,
                    None => self.discard_copy(update, recipient, *position).await?,
                };
                changed += usize::from(done);
            }
            match found.last() {
                Some((_, last)) if found.len() >= BATCH => after = Some(*last),
                _ => return Ok(changed),
            }
        }
    }

    async fn renew(&self, recipient: &Address, position: Position, at: OffsetDateTime) -> Result<bool, StoreError> {
        // Nobody is there: what is stored for them is being buried.
        let Some(party) = self.registry.find(recipient) else { return Ok(false) };
        // Or the sweep could find it expired, and bury it once it is not any more.
        let _no_sweep = self.renewals.read().await;
        if !lock(&party.state).pipeline().begin_renewal(position) {
            return Ok(false);
        }
        let now = OffsetDateTime::now_utc();
        let renewed = self.store.update_expiry(recipient, position, now, Some(at)).await;
        let expires_at = matches!(renewed, Ok(true)).then_some(at);
        let mut state = lock(&party.state);
        state.pipeline().end_renewal(position, expires_at);
        if let Some(carrier) = &state.carrier {
            carrier.knock();
        }
        renewed
    }

    /// What is a copy of a message to many is reported with the others.
    async fn discard_copy(
        self: &Arc<Self>,
        update: &StoredMessageUpdate,
        recipient: &Address,
        position: Position,
    ) -> Result<bool, StoreError> {
        let discarded = self.discard(recipient, position).await?;
        if discarded {
            let (originator, message_id) = (&update.originator, &update.message_id);
            fan_out::take_failure(self, originator, message_id, recipient, FailureCause::Discarded).await;
        }
        Ok(discarded)
    }

    async fn discard(&self, recipient: &Address, position: Position) -> Result<bool, StoreError> {
        let Some(party) = self.registry.find(recipient) else { return Ok(false) };
        if !lock(&party.state).pipeline().begin_discard(position) {
            return Ok(false);
        }
        let removed = self.store.remove_messages(recipient, vec![position]).await;
        let mut state = lock(&party.state);
        state.pipeline().end_discard(position, removed.is_ok());
        if let Some(carrier) = &state.carrier {
            carrier.knock();
        }
        drop(state);
        Ok(!removed?.is_empty())
    }
}
