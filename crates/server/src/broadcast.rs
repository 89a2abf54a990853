//! Broadcast (TS 23.554 clause 5.2, MSGin5G-7; TS 29.538 MSGG_BGDelivery): messages to a broadcast area go to the Broadcast Message
//! Gateway.
//!
//! Each `[[broadcast_area]]` is a party with a courier of its own, so that order, store and forward, back-off and every
//! limit are those of a message to an Application Server. *Delivered* means that the gateway answered 2xx (204): who in
//! the area heard it, nobody can say, and there are no reports (TS 29.538 has no operation for them).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use message::{Address, AddressType, FailureCause, IdentityPattern, ServiceAddress};
use sbi::SbiClient;
use serde::Deserialize;

use crate::application_server::{Courier, Wire};
use crate::core::Core;
use crate::inbox;
use crate::log_budget::Topic;
use crate::mailbox::{CloseReason, Letter, Mailbox};
use crate::policy::{ServerRules, any_matches, word};
use crate::sync::lock;

/// The operation, in audit events.
const BROADCAST: &str = "broadcast";
/// Path of the API below the gateway's root.
const API_PATH: &str = "/msgg-bgdelivery/v1";

/// `[[broadcast_area]]`: an area that messages can be broadcast to, and by whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BroadcastAreaSection {
    /// Broadcast Area ID.
    pub area: ServiceAddress,
    /// Who may send to it; nobody else may.
    #[serde(default)]
    pub senders: Vec<IdentityPattern>,
}

/// The areas there are, by the rules in force.
pub(crate) struct Broadcast {
    rules: ServerRules,
    /// Where the gateway is, and who calls there; not set where there is none.
    gateway: OnceLock<(Arc<str>, SbiClient)>,
    couriers: Mutex<HashMap<ServiceAddress, Arc<Mailbox>>>,
}

impl Broadcast {
    pub(crate) fn new(rules: ServerRules) -> Self {
        Self { rules, gateway: OnceLock::new(), couriers: Mutex::default() }
    }

    /// Whether `originator` may send to `area`.
    ///
    /// # Errors
    /// The cause to refuse the message with.
    pub(crate) fn admits(&self, core: &Core, area: &Address, originator: &Address) -> Result<(), FailureCause> {
        let rules = self.rules.current();
        let section = rules.areas.iter().find(|section| section.area == area.addr);
        let section = section.ok_or(FailureCause::UnknownTarget)?;
        let (subject, object) = (originator.to_string(), area.to_string());
        if any_matches(&section.senders, originator) {
            core.audit.allowed_for(&subject, BROADCAST, &object, word::RULE);
            return Ok(());
        }
        core.audit.refused_for(&subject, BROADCAST, &object, word::NOT_ALLOWED);
        if core.log_budget.admits(Topic::NotAllowed) {
            tracing::warn!(
                target: "security", %originator, destination = %area,
                "message refused: its originator may not send there"
            );
        }
        Err(FailureCause::BroadcastNotAllowed)
    }

    /// Tells every courier to end in good order.
    pub(crate) fn stop_all(&self) {
        for mailbox in lock(&self.couriers).values() {
            mailbox.post(Letter::Close(CloseReason::Stopping));
        }
    }
}

/// Makes every area a party whose courier calls at the gateway. What is stored for an area that is configured no more is
/// failed by [`crate::server::load`].
pub(crate) fn start(core: &Arc<Core>, gateway: &str, client: &SbiClient) {
    let target: Arc<str> = format!("{}{API_PATH}", gateway.trim_end_matches('/')).into();
    // Set once: the server starts once.
    let _ = core.broadcast.gateway.set((target, client.clone()));
    for section in &core.broadcast.rules.current().areas {
        start_courier(core, &section.area);
    }
}

/// Couriers for areas that are new; those of areas that are gone end, and what waits for them fails.
pub(crate) async fn reconcile(core: &Arc<Core>) {
    let rules = core.broadcast.rules.current();
    let known: Vec<ServiceAddress> = lock(&core.broadcast.couriers).keys().cloned().collect();
    for section in rules.areas.iter().filter(|section| !known.contains(&section.area)) {
        start_courier(core, &section.area);
    }
    for area in known.into_iter().filter(|area| rules.areas.iter().all(|section| section.area != *area)) {
        tracing::warn!(%area, "broadcast area no longer configured, what waits for it fails");
        lock(&core.broadcast.couriers).remove(&area);
        let address = Address { addr_type: AddressType::Bc, addr: area };
        let _turn = core.registering(&address).await;
        if let Some(party) = core.registry.find(&address) {
            core.dissolve(&party, None);
            inbox::clear(core, &address).await;
        }
    }
}

fn start_courier(core: &Arc<Core>, area: &ServiceAddress) {
    let Some((target, client)) = core.broadcast.gateway.get() else { return };
    let address = Address { addr_type: AddressType::Bc, addr: area.clone() };
    // Areas are bounded by the configuration.
    let Ok(party) = core.registry.find_or_insert(&address, 0) else { return };
    if core.store.pending_count(&address) > 0 {
        inbox::found_on_disk(core, &party);
    }
    let mailbox = Arc::new(Mailbox::default());
    let Some(generation) = party.attach(&mailbox, None) else { return };
    lock(&core.broadcast.couriers).insert(area.clone(), Arc::clone(&mailbox));
    let courier = Courier {
        core: Arc::clone(core),
        party,
        mailbox,
        generation,
        target: Arc::clone(target),
        client: client.clone(),
        wire: Wire::BroadcastGateway,
    };
    core.tasks.spawn(courier.run());
}
