//! Stored message update (TS 23.554 clause 8.3.6.1): the originator of a message that waits on disk gives it another
//! expiration time, or has it discarded.
//!
//! The recipient may come back at any moment, so the pipeline is asked first. A message that is to be discarded is claimed
//! as an expired one is: what is on its way to the recipient cannot be called back and counts as not stored. One that gets
//! another expiry stays deliverable throughout, and only the sweep of expired messages is kept off it meanwhile.

use std::sync::Arc;

use message::{Address, FailureCause, StoredMessageUpdate};
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
        let changed = match self.change_all(update, expires_at).await {
            Ok(changed) => changed,
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
        if !lock(&party.state).pipeline().begin_renewal(position) {
            return Ok(false);
        }
        let renewed = self.store.update_expiry(recipient, position, Some(at)).await;
        let expires_at = matches!(renewed, Ok(true)).then_some(at);
        lock(&party.state).pipeline().end_renewal(position, expires_at);
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
        if !lock(&party.state).pipeline().claim(position) {
            return Ok(false);
        }
        let removed = self.store.remove_messages(recipient, vec![position]).await;
        let mut state = lock(&party.state);
        let pipeline = state.pipeline();
        if removed.is_err() {
            // It is there still, and not in memory any more.
            pipeline.stored_beside();
            pipeline.buried(position);
        } else {
            pipeline.end_discard(position);
        }
        Ok(!removed?.is_empty())
    }
}
