//! Who is registered: a bounded table that is told the time.

use std::collections::BTreeMap;
use std::time::Duration;

use sbi::nrf::{NFProfile, NFStatus, NotificationEventType, PatchError, PatchItem, apply_patch};
use sbi::{ProblemDetails, cause, parse_json};
use tokio::time::Instant;
use uuid::Uuid;

use super::Limits;

/// Profiles by NF instance ID.
pub(super) struct Registry {
    limits: Limits,
    revision: u64,
    entries: BTreeMap<Uuid, Entry>,
}

struct Entry {
    profile: NFProfile,
    /// Changes with the profile.
    revision: u64,
    /// By then a sign of life must have come; or, of a suspended one, when it is removed.
    deadline: Instant,
    /// Suspended by us, not by itself.
    suspended: bool,
}

/// What became of a registration; for subscribers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) kind: NotificationEventType,
    pub(super) profile: NFProfile,
    /// The profile as it was before, where it changed.
    pub(super) before: Option<NFProfile>,
}

/// A profile as the table has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    pub(super) profile: NFProfile,
    pub(super) revision: u64,
}

impl Registry {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, revision: 0, entries: BTreeMap::new() }
    }

    /// Puts a whole profile there; whether it is new, and what to tell.
    pub(super) fn put(
        &mut self,
        mut profile: NFProfile,
        now: Instant,
    ) -> Result<(bool, Kept, Option<Event>), ProblemDetails> {
        let id = profile.nf_instance_id;
        check(&profile, self.limits.profile_octets_max)?;
        self.decide(&mut profile);
        let earlier = self.entries.get(&id).map(|entry| entry.profile.clone());
        if earlier.is_none() && self.entries.len() >= self.limits.profiles_max {
            return Err(full());
        }
        let event = match &earlier {
            None => Some(Event { kind: NotificationEventType::NfRegistered, profile: profile.clone(), before: None }),
            Some(earlier) if *earlier == profile => None,
            Some(earlier) => Some(changed(&profile, earlier)),
        };
        let kept = self.keep(profile, now);
        Ok((earlier.is_none(), kept, event))
    }

    /// Says what the NRF decides, and leaves out what belongs to one request or answer (TS 29.510 table 6.1.6.2.2-1): how much of
    /// the profile an answer is to hold. Ours hold all of it.
    fn decide(&self, profile: &mut NFProfile) {
        profile.heart_beat_timer = Some(self.limits.heart_beat_seconds);
        for name in OF_ONE_EXCHANGE {
            profile.rest.remove(name);
        }
    }

    /// Changes a profile by a JSON patch, which is a sign of life. What it is afterwards, and what to tell if it changed.
    pub(super) fn patch(
        &mut self,
        id: Uuid,
        if_match: Option<u64>,
        items: &[PatchItem],
        now: Instant,
    ) -> Result<(Kept, Option<Event>), ProblemDetails> {
        let octets_max = self.limits.profile_octets_max;
        let entry = self.entries.get(&id).ok_or_else(unknown)?;
        if if_match.is_some_and(|revision| revision != entry.revision) {
            return Err(ProblemDetails::new(axum::http::StatusCode::PRECONDITION_FAILED));
        }
        let (earlier, suspended, revision) = (entry.profile.clone(), entry.suspended, entry.revision);
        let document = serde_json::to_value(&earlier).map_err(|_| ProblemDetails::internal())?;
        let patched = apply_patch(&document, items, octets_max).map_err(refusal)?;
        let text = serde_json::to_vec(&patched).map_err(|_| ProblemDetails::internal())?;
        let mut profile: NFProfile = parse_json(&text)?;
        if profile.nf_instance_id != id || profile.nf_type != earlier.nf_type {
            return Err(ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT)
                .with_detail("nfInstanceId and nfType cannot be changed"));
        }
        check(&profile, octets_max)?;
        self.decide(&mut profile);
        if suspended && profile.nf_status == NFStatus::Suspended {
            // A sign of life of any kind is one.
            profile.nf_status = NFStatus::Registered;
        }
        if profile == earlier {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.deadline = now + alive_for(&self.limits);
            }
            return Ok((Kept { profile, revision }, None));
        }
        let event = changed(&profile, &earlier);
        Ok((self.keep(profile, now), Some(event)))
    }

    pub(super) fn get(&self, id: Uuid) -> Option<Kept> {
        self.entries.get(&id).map(|entry| Kept { profile: entry.profile.clone(), revision: entry.revision })
    }

    pub(super) fn remove(&mut self, id: Uuid) -> Result<Event, ProblemDetails> {
        self.entries.remove(&id).map(|entry| gone(entry.profile)).ok_or_else(unknown)
    }

    /// All profiles, in the order of their IDs.
    pub(super) fn profiles(&self) -> impl Iterator<Item = &NFProfile> {
        self.entries.values().map(|entry| &entry.profile)
    }

    /// IDs of those that can be used.
    pub(super) fn usable(&self) -> Vec<Uuid> {
        self.profiles()
            .filter(|profile| profile.nf_status == NFStatus::Registered)
            .map(|profile| profile.nf_instance_id)
            .collect()
    }

    /// Suspends, and later removes, whoever gave no sign of life until `now`.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Event> {
        let late: Vec<Uuid> =
            self.entries.iter().filter(|(_, entry)| entry.deadline <= now).map(|(id, _)| *id).collect();
        let mut events = Vec::new();
        for id in late {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if entry.suspended {
                events.extend(self.remove(id));
                continue;
            }
            let earlier = entry.profile.clone();
            entry.suspended = true;
            entry.profile.nf_status = NFStatus::Suspended;
            entry.deadline = now + Duration::from_secs(u64::from(self.limits.suspended_kept_seconds));
            self.revision += 1;
            entry.revision = self.revision;
            events.push(changed(&entry.profile, &earlier));
        }
        events
    }

    fn keep(&mut self, profile: NFProfile, now: Instant) -> Kept {
        self.revision += 1;
        let deadline = now + alive_for(&self.limits);
        let kept = Kept { profile: profile.clone(), revision: self.revision };
        let entry = Entry { profile, revision: self.revision, deadline, suspended: false };
        self.entries.insert(kept.profile.nf_instance_id, entry);
        kept
    }
}

/// How long a function counts as alive after a sign of life.
fn alive_for(limits: &Limits) -> Duration {
    Duration::from_secs(u64::from(limits.heart_beat_seconds) + u64::from(limits.heart_beat_grace_seconds))
}

fn check(profile: &NFProfile, octets_max: usize) -> Result<(), ProblemDetails> {
    if let Some((member, reason)) = profile.fault() {
        return Err(ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT).with_invalid_param(member, reason));
    }
    match serde_json::to_vec(profile) {
        Ok(octets) if octets.len() <= octets_max => Ok(()),
        _ => Err(ProblemDetails::new(axum::http::StatusCode::PAYLOAD_TOO_LARGE)),
    }
}

fn changed(profile: &NFProfile, before: &NFProfile) -> Event {
    Event { kind: NotificationEventType::NfProfileChanged, profile: profile.clone(), before: Some(before.clone()) }
}

fn gone(profile: NFProfile) -> Event {
    Event { kind: NotificationEventType::NfDeregistered, profile, before: None }
}

fn refusal(error: PatchError) -> ProblemDetails {
    match error {
        PatchError::TooLarge(_) => ProblemDetails::new(axum::http::StatusCode::PAYLOAD_TOO_LARGE),
        // TS 29.501 clause 4.6.1.1.3 has no code of its own for a patch that does not fit.
        error => ProblemDetails::bad_request(cause::INVALID_MSG_FORMAT).with_detail(error.to_string()),
    }
}

fn unknown() -> ProblemDetails {
    ProblemDetails::not_found(RESOURCE_NOT_FOUND)
}

pub(super) fn full() -> ProblemDetails {
    ProblemDetails::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR).with_cause(cause::INSUFFICIENT_RESOURCES)
}

const OF_ONE_EXCHANGE: [&str; 3] =
    ["nfProfileChangesSupportInd", "nfProfilePartialUpdateChangesSupportInd", "nfProfileChangesInd"];
/// TS 29.500 table 5.2.7.2-1.
pub(super) const RESOURCE_NOT_FOUND: &str = "RESOURCE_URI_STRUCTURE_NOT_FOUND";
