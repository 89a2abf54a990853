//! What an operator writes about destinations that are neither a UE nor an Application Server: groups, Messaging Topics,
//! broadcast areas.

use std::collections::HashSet;
use std::sync::Arc;

use message::{Address, AddressType, IdentityPattern, MessagingTopic, ServiceAddress};
use sbi::callback::is_well_formed_below;
use sbi::{ClientLimits, PeerIdentity, SbiClient};
use serde::Deserialize;

use crate::application_server::is_shown;
use crate::config::Config;
use crate::groups::GroupSource;
use crate::policy::{ServerRules, any_matches};

/// `[group_management]`: the SEAL group management server (TS 23.434, TS 29.549). Without it groups are not served.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupManagementSection {
    /// The API root, `https://...`.
    pub url: String,
    /// Limits on requests to it.
    #[serde(default)]
    pub requests: ClientLimits,
}

/// `[broadcast]`: the Broadcast Message Gateway (TS 29.538 MSGG_BGDelivery). Needed for any `[[broadcast_area]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BroadcastSection {
    /// The API root, `https://...`.
    pub gateway: String,
    /// Limits on requests to it.
    #[serde(default)]
    pub requests: ClientLimits,
}

/// `[[topic_server]]`: another server that may subscribe on behalf of others, and be told which topics there are (TS 29.538
/// MSGS_TopiclistEvent).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicServerSection {
    /// Its name: the `addr` of `oriAddr` in what it asks for itself.
    pub server_id: ServiceAddress,
    /// The NF instance ID in its certificate (`urn:uuid:` URI).
    #[serde(default)]
    pub nf_instance_id: Option<String>,
    /// A DNS name in its certificate. If both are given, both must match.
    #[serde(default)]
    pub dns_name: Option<String>,
    /// On whose behalf it may subscribe and unsubscribe.
    #[serde(default)]
    pub subscribers: Vec<IdentityPattern>,
    /// Where its `notificationURI` may point: prefixes, each an `https` origin with or without a path. Empty: at the DNS
    /// names and IP addresses of its certificate.
    #[serde(default)]
    pub notification_uris: Vec<String>,
}

impl TopicServerSection {
    pub(crate) fn admits(&self, identity: &PeerIdentity) -> bool {
        is_shown(self.nf_instance_id.as_deref(), self.dns_name.as_deref(), identity)
    }

    /// Whether it may subscribe and unsubscribe `subscriber`.
    pub(crate) fn acts_for(&self, subscriber: &Address) -> bool {
        any_matches(&self.subscribers, subscriber)
    }

    /// As what the rules of topics know it: the text `SERVER:msgin5g.other.example`.
    pub(crate) fn address(&self) -> Address {
        Address { addr_type: AddressType::Other(SERVER.to_owned()), addr: self.server_id.clone() }
    }
}

/// The type of another server in rules (INFERRED: TS 29.538 AddressType has no value for one).
const SERVER: &str = "SERVER";

/// What the server makes of these sections.
pub(crate) struct Destinations {
    pub(crate) groups: Option<Arc<dyn GroupSource>>,
    pub(crate) rules: ServerRules,
    /// For notifications.
    pub(crate) client: Option<SbiClient>,
}

/// What is wrong with the sections, if anything: the key, and why.
pub(crate) fn fault(config: &Config) -> Option<(&'static str, &'static str)> {
    let is_root = |uri: &str| is_well_formed_below(uri, &[]);
    if config.group_management.as_ref().is_some_and(|section| !is_root(&section.url)) {
        return Some(("group_management.url", "must be an https URL"));
    }
    if config.broadcast.as_ref().is_some_and(|section| !is_root(&section.gateway)) {
        return Some(("broadcast.gateway", "must be an https URL"));
    }
    if config.broadcast.is_none() && !config.broadcast_area.is_empty() {
        return Some(("broadcast.gateway", "is needed for broadcast areas"));
    }
    let mut areas = HashSet::new();
    if !config.broadcast_area.iter().all(|section| areas.insert(&section.area)) {
        return Some(("broadcast_area.area", "is there twice"));
    }
    if !config.topic.iter().all(|section| is_topic_name(&section.name)) {
        return Some(("topic.name", "must be a Messaging Topic, or the beginning of some followed by *"));
    }
    for section in &config.topic_server {
        if section.nf_instance_id.is_none() && section.dns_name.is_none() {
            return Some(("topic_server", "needs nf_instance_id or dns_name"));
        }
        if section.notification_uris.iter().any(|prefix| !prefix.starts_with("https://")) {
            return Some(("topic_server.notification_uris", "must be https URLs"));
        }
    }
    let stored = &config.store.options.limits;
    if config.limits.group_members_max > stored.members_per_job_max {
        return Some(("limits.group_members_max", "must not be more than store.options.limits.members_per_job_max"));
    }
    let members_max = u64::try_from(stored.members_per_job_max).unwrap_or(u64::MAX);
    (stored.subscriptions_per_topic_max > members_max).then_some((
        "store.options.limits.subscriptions_per_topic_max",
        "must not be more than store.options.limits.members_per_job_max",
    ))
}

fn is_topic_name(name: &str) -> bool {
    name == "*" || name.strip_suffix('*').unwrap_or(name).parse::<MessagingTopic>().is_ok()
}
