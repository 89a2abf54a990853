//! What every part of the server shares.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use message::DecodeLimits;
use sbi::admin::Health;
use sbi::audit::Audit;
use store::Store;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::association::AssociationSource;
use crate::broadcast::Broadcast;
use crate::destinations::Destinations;
use crate::fan_out::FanOut;
use crate::groups::Groups;
use crate::hibernation::Hibernation;
use crate::inbox::{Inbox, Writers};
use crate::limits::Limits;
use crate::log_budget::LogBudget;
use crate::metrics::Metrics;
use crate::reachability::Reachability;
use crate::registry::Registry;
use crate::sealed::Vault;
use crate::segments::Segments;
use crate::sessions::Sessions;
use crate::topics::Topics;

/// The parts, and the counts that bound all of them together.
pub(crate) struct Core {
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) registry: Registry,
    pub(crate) sessions: Sessions,
    /// Sessions that rest.
    pub(crate) hibernation: Arc<Hibernation>,
    /// Where they are left at a graceful stop.
    vault: OnceLock<Vault>,
    pub(crate) log_budget: LogBudget,
    /// Where decisions by the operator's rules are told.
    pub(crate) audit: Audit,
    pub(crate) inbox: Inbox,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) associations: Arc<dyn AssociationSource>,
    /// Look-ups of associations that may be under way at once.
    pub(crate) association_slots: tokio::sync::Semaphore,
    /// Where K_AF comes from; asked again while a connection lasts.
    pub(crate) keys: Option<Arc<transport::KeyLookup>>,
    /// Messages to groups and topics.
    pub(crate) fan_out: FanOut,
    pub(crate) groups: Groups,
    pub(crate) topics: Topics,
    pub(crate) broadcast: Broadcast,
    /// What comes from peers is held to this.
    pub(crate) decode_limits: DecodeLimits,
    /// What comes from Application Servers is held to this: messages that are not segmented yet.
    pub(crate) whole_limits: DecodeLimits,
    /// Segments of messages that are put together here.
    pub(crate) segments: Arc<Segments>,
    /// What was stored under an earlier configuration is still read.
    pub(crate) stored_limits: DecodeLimits,
    /// Until then the disk may know messages that memory does not.
    pub(crate) ask_disk_until: Instant,
    /// Nothing new is taken.
    pub(crate) stopping: CancellationToken,
    /// Everything ends.
    pub(crate) stopped: CancellationToken,
    /// Waking UEs through the network.
    pub(crate) reachability: Reachability,
    /// Whether the server can do its work, for whoever asks on the management network.
    pub(crate) health: Health,
    /// Every task of the server.
    pub(crate) tasks: TaskTracker,
    open_requests: AtomicUsize,
    /// Held for reading by who gives a stored message another expiry, for writing by the sweep while it looks for and
    /// claims what has expired.
    pub(crate) renewals: tokio::sync::RwLock<()>,
    /// Registrations of one UE are made one after the other.
    registering: Box<[Arc<tokio::sync::Mutex<()>>]>,
}

/// Registrations of different UEs that wait for each other by accident at most once in so many.
const REGISTERING_STRIPES: usize = 256;

/// What [`Core::new`] is made of.
pub(crate) struct Parts {
    pub(crate) limits: Limits,
    pub(crate) audit: Audit,
    pub(crate) metrics: Metrics,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) associations: Arc<dyn AssociationSource>,
    pub(crate) keys: Option<Arc<transport::KeyLookup>>,
    pub(crate) destinations: Destinations,
}

impl Core {
    /// The core, and the ends of its inbox that are to be run.
    pub(crate) fn new(parts: Parts) -> (Arc<Self>, Writers) {
        let Parts { limits, audit, metrics, store, associations, keys, destinations } = parts;
        let (inbox, writers) = Inbox::new(limits.store_queue_max);
        let decode_limits = DecodeLimits {
            message_octets_max: limits.message_octets_max,
            payload_octets_max: limits.payload_octets_max,
            ..DecodeLimits::default()
        };
        let whole_limits = DecodeLimits {
            message_octets_max: usize::MAX,
            payload_octets_max: limits.message_payload_octets_max,
            ..decode_limits
        };
        let stored_limits =
            DecodeLimits { message_octets_max: usize::MAX, payload_octets_max: usize::MAX, ..decode_limits };
        let groups = Groups::new(destinations.groups, &limits);
        let core = Self {
            association_slots: tokio::sync::Semaphore::new(limits.association_lookups_max),
            segments: Segments::new(&limits),
            ask_disk_until: Instant::now() + Duration::from_secs(limits.remembered_stored_seconds),
            log_budget: LogBudget::new(limits.log_lines_per_minute_max),
            limits,
            metrics,
            registry: Registry::new(),
            sessions: Sessions::default(),
            hibernation: Arc::default(),
            vault: OnceLock::new(),
            inbox,
            store,
            associations,
            audit,
            keys,
            fan_out: FanOut::default(),
            groups,
            topics: Topics::new(Arc::clone(&destinations.rules), destinations.client),
            broadcast: Broadcast::new(destinations.rules),
            decode_limits,
            whole_limits,
            stored_limits,
            stopping: CancellationToken::new(),
            stopped: CancellationToken::new(),
            reachability: Reachability::default(),
            health: Health::new(),
            tasks: TaskTracker::new(),
            open_requests: AtomicUsize::new(0),
            renewals: tokio::sync::RwLock::default(),
            registering: (0..REGISTERING_STRIPES).map(|_| Arc::default()).collect(),
        };
        (Arc::new(core), writers)
    }

    /// A graceful stop leaves the sessions that rest there.
    pub(crate) fn seals_with(&self, vault: Vault) {
        // There is one listener of datagrams.
        let _ = self.vault.set(vault);
    }

    /// Seals the sessions that rest, where that is configured, until then.
    pub(crate) fn seal_sessions(self: &Arc<Self>, until: Instant) {
        let Some(vault) = self.vault.get() else { return };
        match vault.seal_all(self, until) {
            Ok(sessions) => tracing::info!(sessions, "DTLS sessions sealed"),
            Err(error) => tracing::error!(%error, "DTLS sessions not sealed, their devices make new handshakes"),
        }
    }

    /// Counts a request that is to wait for its answer; false if too many do.
    pub(crate) fn request_opened(&self) -> bool {
        if self.open_requests.fetch_add(1, Ordering::Relaxed) < self.limits.requests_total_max {
            return true;
        }
        self.open_requests.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// The opposite of [`Core::request_opened`].
    pub(crate) fn request_closed(&self) {
        self.open_requests.fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests that wait for their answer.
    pub(crate) fn open_requests(&self) -> usize {
        self.open_requests.load(Ordering::Relaxed)
    }

    /// Copies what is counted elsewhere to where operators see it.
    pub(crate) fn update_gauges(&self) {
        let (topics, subscriptions) = self.topics.counts();
        let gauges = [
            (&self.metrics.connections, self.sessions.connections()),
            (&self.metrics.registered, self.registry.ues()),
            (&self.metrics.sessions_resting, self.hibernation.count()),
            (&self.metrics.open_requests, self.open_requests()),
            (&self.metrics.store_queue, self.inbox.queued()),
            (&self.fan_out.metrics.jobs, self.fan_out.open_jobs()),
            (&self.fan_out.metrics.topics, topics),
            (&self.fan_out.metrics.subscriptions, subscriptions),
            (&self.fan_out.metrics.list_subscriptions, self.topics.lists.count()),
        ];
        let (sets, octets) = self.segments.held();
        let gauges = gauges
            .into_iter()
            .chain([(&self.metrics.reassembly_sets, sets), (&self.metrics.reassembly_octets, octets)]);
        for (gauge, value) in gauges {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn expiry_default(&self) -> time::Duration {
        seconds(self.limits.expiry_default_seconds.min(self.limits.expiry_max_seconds))
    }

    pub(crate) fn expiry_max(&self) -> time::Duration {
        seconds(self.limits.expiry_max_seconds)
    }

    pub(crate) fn reassembly_wait(&self) -> time::Duration {
        seconds(self.limits.reassembly_wait_seconds)
    }

    pub(crate) fn remembered_stored(&self) -> Duration {
        Duration::from_secs(self.limits.remembered_stored_seconds)
    }

    /// Waits until no other registration of this party is under way.
    pub(crate) async fn registering(&self, address: &message::Address) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        let hash =
            address.addr.as_str().bytes().fold(0_usize, |hash, octet| hash.wrapping_mul(31) + usize::from(octet));
        let stripe = self.registering.get(hash % REGISTERING_STRIPES)?;
        Some(Arc::clone(stripe).lock_owned().await)
    }
}

fn seconds(count: u64) -> time::Duration {
    time::Duration::seconds(i64::try_from(count).unwrap_or(i64::MAX))
}
