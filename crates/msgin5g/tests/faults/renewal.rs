//! Keys that live for seconds: clients replace them in time, and no message pays for it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Client, Incoming, IncomingStream, Outcome, OutgoingMessage};
use message::UeServiceId;

use crate::common::Lab;
use crate::common::fleet::Fleet;
use crate::common::function::Function;
use crate::neighbour::{ausf_of, eventually};

/// Registrations of each client: the first, and those after renewals.
const REGISTRATIONS: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_renewed_again_and_again_and_of_what_is_sent_meanwhile_nothing_is_lost_or_repeated() {
    let lab = Lab::start();
    let aanf = Function::aanf(&lab, &[("MSGIN5G_KAF_LIFETIME_SECONDS", "6")]);
    let ausf = ausf_of(&lab, &aanf.root()).await;
    let server = Function::server(&lab, &[("MSGIN5G_AKMA__AANF", &aanf.root())]);
    let mut fleet = Fleet::provision_for(&lab, 2, &ausf).await;
    for ue in &mut fleet.ues {
        ue.config.server = server.address().to_string();
        ue.config.limits.authentication_interval_milliseconds = 0;
    }
    let [alice, bob] = &fleet.ues[..] else { panic!("two") };
    let (alice_client, to_alice) = alice.connect().await;
    let (bob_client, to_bob) = bob.connect().await;
    let (alice_client, bob_client) = (Arc::new(alice_client), Arc::new(bob_client));
    let (alice_got, bob_got) = (receive(to_alice), receive(to_bob));
    let done = Arc::new(Mutex::new(false));
    let from_alice = send(&alice_client, &bob.service_id, &done);
    let from_bob = send(&bob_client, &alice.service_id, &done);

    let registrations = |client: &Client| client.status().registrations;
    eventually("the renewals", || {
        // Most of them came before the expiry, and were in place before the earlier connection ended.
        let replaced = server.metric("msgin5g_connections_ended_total{reason=\"registered on a newer connection\"}");
        registrations(&alice_client) >= REGISTRATIONS && registrations(&bob_client) >= REGISTRATIONS && replaced >= 4
    })
    .await;
    *done.lock().unwrap() = true;
    let (from_alice, from_bob) = (from_alice.await.unwrap(), from_bob.await.unwrap());
    assert!(from_alice.len() > 20 && from_bob.len() > 20, "{} and {}", from_alice.len(), from_bob.len());
    assert_once(&alice_client, &bob.service_id, from_alice, &bob_got, "from alice to bob").await;
    assert_once(&bob_client, &alice.service_id, from_bob, &alice_got, "from bob to alice").await;
}

/// Sends one last message, which comes behind whatever is still on its way, a repetition too: what came until then is what was
/// sent, each once.
pub(crate) async fn assert_once(
    sender: &Client,
    to: &UeServiceId,
    mut sent: BTreeSet<String>,
    got: &Mutex<Vec<String>>,
    which: &str,
) {
    let last = OutgoingMessage::to_ue(to, "last").store_and_forward(None);
    let id = last.id().as_str().to_owned();
    let outcome = sender.send(last).await.unwrap();
    assert!(matches!(outcome, Outcome::Delivered | Outcome::Stored), "{which}: {outcome:?}");
    sent.insert(id.clone());
    eventually(&format!("the last {which}"), || got.lock().unwrap().contains(&id)).await;
    let mut got = got.lock().unwrap().clone();
    got.sort_unstable();
    assert_eq!(got, sent.into_iter().collect::<Vec<_>>(), "{which}: lost, twice, or nobody's");
}

/// What a client gets, in the order in which it gets it.
pub(crate) fn receive(mut incoming: IncomingStream) -> Arc<Mutex<Vec<String>>> {
    let got = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&got);
    tokio::spawn(async move {
        while let Some(arrived) = incoming.next().await {
            let Incoming::Message(message) = arrived else { continue };
            let id = message.content().message_id.as_str().to_owned();
            into.lock().unwrap().push(id);
            message.accept().await.unwrap();
        }
    });
    got
}

/// Sends one message after the other until it is done; which were answered with a promise.
pub(crate) fn send(
    client: &Arc<Client>,
    to: &UeServiceId,
    done: &Arc<Mutex<bool>>,
) -> tokio::task::JoinHandle<BTreeSet<String>> {
    let (client, to, done) = (Arc::clone(client), to.clone(), Arc::clone(done));
    tokio::spawn(async move {
        let mut sent = BTreeSet::new();
        while !*done.lock().unwrap() {
            let message = OutgoingMessage::to_ue(&to, "21.5").store_and_forward(None);
            let id = message.id().as_str().to_owned();
            let outcome = client.send(message).await.unwrap();
            assert!(matches!(outcome, Outcome::Delivered | Outcome::Stored), "{outcome:?}");
            sent.insert(id);
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        sent
    })
}
