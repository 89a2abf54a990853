//! The lab, and the server under test beside it.

use akma::Gpsi;
use message::UeServiceId;
use sbi::association::AssociationClient;

use crate::common::{Lab, foreign_ue::ForeignUe, function::Function};
use crate::neighbour::client_of;

/// Places in `lab.json` of subscribers that the foreign UE can be.
pub(crate) const METER: usize = 0;
pub(crate) const VALVE: usize = 1;
pub(crate) const LAMP: usize = 2;
pub(crate) const TRACKER: usize = 3;

/// A lab with a second server.
pub(crate) struct World {
    // Ends before the lab does.
    pub(crate) server: Function,
    pub(crate) lab: Lab,
}

impl World {
    /// Whose server has these keys overridden.
    pub(crate) fn start(variables: &[(&'static str, &str)]) -> Self {
        Self::beside(Lab::start(), variables)
    }

    /// The same in a lab that is there.
    pub(crate) fn beside(lab: Lab, variables: &[(&'static str, &str)]) -> Self {
        // Who is tried again, is soon.
        let mut all =
            vec![("MSGIN5G_LIMITS__BACKOFF_FIRST_MILLISECONDS", "50"), ("MSGIN5G_LIMITS__BACKOFF_MAX_SECONDS", "1")];
        all.extend(variables);
        let server = Function::server(&lab, &all);
        Self { server, lab }
    }

    /// A UE that is registered at the server.
    pub(crate) fn ue(&self, subscriber: usize) -> ForeignUe {
        ForeignUe::registered(&self.lab, subscriber, self.server.address())
    }

    /// `kill -9` of the server, and its next start.
    pub(crate) fn crash(&mut self) {
        self.server.kill();
        self.server.start_again();
    }

    /// The GPSI of a subscriber.
    pub(crate) fn gpsi(&self, subscriber: usize) -> String {
        self.lab.lab_json()["subscribers"][subscriber]["gpsi"].as_str().unwrap().to_owned()
    }

    /// Associates a subscriber's GPSI with its UE Service ID, beside its SUPI.
    pub(crate) async fn associate_gpsi(&self, subscriber: usize) {
        let description = self.lab.lab_json();
        let root = description["core"]["configuration"].as_str().unwrap();
        let name = description["subscribers"][subscriber]["ue_service_id"].as_str().unwrap();
        let gpsi: Gpsi = self.gpsi(subscriber).parse().unwrap();
        let client = AssociationClient::new(client_of(&self.lab, "provisioner"), root);
        client.associate(&gpsi.into(), &name.parse::<UeServiceId>().unwrap()).await.unwrap();
    }
}

/// A message of one UE that is here to another that is: it is the next that comes there.
#[track_caller]
pub(crate) fn passes(from: &mut ForeignUe, to: &mut ForeignUe, id: &str) {
    from.post(&to.service_id, &[id.to_owned()], false);
    assert_eq!(to.receive(1), [id]);
    let answers = from.collect().answers;
    assert!(answers[id].is_delivered(), "{answers:?}");
}
