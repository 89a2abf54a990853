//! Broadcast (TS 23.554 clause 5.2, MSGin5G-7; TS 29.538 MSGG_BGDelivery): messages to a broadcast area go to the Broadcast Message
//! Gateway.
//!
//! Each `[[broadcast_area]]` is a party with a courier of its own, so that order, store and forward, back-off and every
//! limit are those of a message to an Application Server. *Delivered* means that the gateway answered 2xx (204): who in
//! the area heard it, nobody can say, and there are no reports (TS 29.538 has no operation for them).

use std::sync::{Arc, Mutex};

use message::{Address, AddressType, FailureCause, IdentityPattern, ServiceAddress};
use sbi::SbiClient;
use serde::Deserialize;

use crate::application_server::{Courier, Wire};
use crate::core::Core;
use crate::inbox;
use crate::log_budget::Topic;
use crate::mailbox::{CloseReason, Letter, Mailbox};
use crate::policy::{any_matches, word};
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

/// The areas there are.
#[derive(Default)]
pub(crate) struct Broadcast {
    areas: Vec<BroadcastAreaSection>,
    couriers: Mutex<Vec<Arc<Mailbox>>>,
}

impl Broadcast {
    pub(crate) fn new(areas: Vec<BroadcastAreaSection>) -> Self {
        Self { areas, couriers: Mutex::default() }
    }

    /// Whether `originator` may send to `area`.
    ///
    /// # Errors
    /// The cause to refuse the message with.
    pub(crate) fn admits(&self, core: &Core, area: &Address, originator: &Address) -> Result<(), FailureCause> {
        let section = self.areas.iter().find(|section| section.area == area.addr);
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
        for mailbox in lock(&self.couriers).iter() {
            mailbox.post(Letter::Close(CloseReason::Stopping));
        }
    }
}

/// Makes every area a party whose courier calls at the gateway. What is stored for an area that is configured no more is
/// failed by [`crate::server::load`].
pub(crate) fn start(core: &Arc<Core>, gateway: &str, client: &SbiClient) {
    let target: Arc<str> = format!("{}{API_PATH}", gateway.trim_end_matches('/')).into();
    for section in &core.broadcast.areas {
        let address = Address { addr_type: AddressType::Bc, addr: section.area.clone() };
        // Areas are bounded by the configuration.
        let Ok(party) = core.registry.find_or_insert(&address, 0) else { continue };
        if core.store.pending_count(&address) > 0 {
            inbox::found_on_disk(core, &party);
        }
        let mailbox = Arc::new(Mailbox::default());
        let Some(generation) = party.attach(&mailbox, None) else { continue };
        lock(&core.broadcast.couriers).push(Arc::clone(&mailbox));
        let courier = Courier {
            core: Arc::clone(core),
            party,
            mailbox,
            generation,
            target: Arc::clone(&target),
            client: client.clone(),
            wire: Wire::BroadcastGateway,
        };
        core.tasks.spawn(courier.run());
    }
}
