//! Configuration of the UE (TS 23.554 clause 8.1): the Configuration Function is killed while UEs observe and associations
//! change.

use akma::{Supi, UeId};
use message::UeServiceId;
use sbi::association::AssociationClient;

use crate::common::Lab;
use crate::common::foreign_ue::ForeignUe;
use crate::common::function::Function;
use crate::neighbour::client_of;
use crate::world::{METER, VALVE};

const NAME: &str = "MSGin5G-UE-Service-id";
const ROUNDS: usize = 3;
/// Changes in a round that are answered and that nobody waits to be told of.
const CHANGES: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_learns_the_last_answered_association_after_kill_9_of_the_configuration_function() {
    let lab = Lab::start();
    let mut function = Function::configuration(&lab, &[]);
    let name =
        |round: usize, change: usize| format!("name-{round}-{change}@lab.example").parse::<UeServiceId>().unwrap();
    let mut meter = ForeignUe::new(&lab, METER);
    let mut valve = ForeignUe::new(&lab, VALVE);
    let [of_meter, of_valve] = [&meter, &valve].map(|ue| UeId::from(ue.supi.parse::<Supi>().unwrap()));
    let associations = |function: &Function| AssociationClient::new(client_of(&lab, "provisioner"), function.root());
    let other: UeServiceId = "other@lab.example".parse().unwrap();
    associations(&function).associate(&of_meter, &name(0, 0)).await.unwrap();
    associations(&function).associate(&of_valve, &other).await.unwrap();
    meter.authenticate();
    valve.authenticate();
    assert_eq!(meter.observe_configuration(function.coap_address())[NAME], name(0, 0).as_str());
    let mut now = name(0, 0);
    for round in 1..=ROUNDS {
        // It is told of one change, and dies right after the answer to the last of some more.
        let provisioner = associations(&function);
        for change in 0..=CHANGES {
            let next = name(round, change);
            provisioner.associate(&of_meter, &next).await.unwrap();
            provisioner.dissociate(&of_meter, &now).await.unwrap();
            if change == 0 {
                while meter.configuration_told()[NAME] != next.as_str() {}
            }
            now = next;
        }
        function.kill();
        meter.configuration_end();
        function.start_again();
        assert_eq!(meter.observe_configuration(function.coap_address())[NAME], now.as_str(), "round {round}");
        let known = associations(&function).of_ue(&of_meter).await.unwrap();
        assert_eq!(known.into_iter().collect::<Vec<_>>(), [now.clone()]);
        // Another UE's is its own.
        assert_eq!(valve.observe_configuration(function.coap_address())[NAME], other.as_str());
    }
    // And is told of changes again.
    let last = name(ROUNDS + 1, 0);
    associations(&function).associate(&of_meter, &last).await.unwrap();
    associations(&function).dissociate(&of_meter, &now).await.unwrap();
    while meter.configuration_told()[NAME] != last.as_str() {}
}
