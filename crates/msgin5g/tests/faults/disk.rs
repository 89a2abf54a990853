//! A disk that fails to sync, fails to write, is slow, loses power, or is full for a while: nothing was answered as stored
//! that was not.
//!
//! The programs are the real ones. Between them and the system is `faulty_disk.c`; the full disk is a real one.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akma::{AfId, KAkma, UaProtocolId};
use client::{Client, Incoming, IncomingStream, Outcome, OutgoingMessage};
use sbi::SbiError;
use sbi::naanf::{AkmaAfKeyRequest, AkmaKeyInfo, NaanfClient};
use tokio::task::JoinHandle;

use crate::common::Lab;
use crate::common::faulty_disk::FaultyDisk;
use crate::common::fleet::{Fleet, FleetUe};
use crate::common::foreign_ue::{ForeignUe, TLS_1_3};
use crate::common::function::Function;
use crate::neighbour::{NobodyThere, client_of, eventually};

const SENDERS: usize = 4;
const LANES: usize = 4;
const RECIPIENTS: usize = 8;

const SYNCS: &str = "store_syncs_total";
const REFUSED: &str = "msgin5g_failed_total{cause=\"STORAGE_FAILED\"}";
const FULL: &str = "store_refused_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_loses_nothing_that_was_answered() {
    let mut rig = Rig::start().await;
    rig.has_accepted(100).await;
    rig.takes_nothing_after("sync-fails").await;
    assert!(rig.disk.octets_lost() > 0, "the octets of the failed sync are gone");
    rig.server.kill();
    rig.server.start_again();
    rig.all_arrives_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_half_way_loses_nothing_that_was_answered() {
    let mut rig = Rig::start().await;
    rig.has_accepted(100).await;
    rig.takes_nothing_after("write-fails").await;
    // A graceful stop has something to write, too.
    rig.server.stop();
    rig.server.start_again();
    rig.all_arrives_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_outlives_losses_of_power() {
    let mut rig = Rig::start().await;
    let mut lost = 0;
    for round in 1..=5 {
        rig.has_accepted(round * 150).await;
        rig.server.kill();
        lost += rig.disk.loses_power();
        rig.server.start_again();
    }
    assert!(lost > 0, "everything written had been synced: these were no losses of power");
    rig.all_arrives_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_delays_answers_and_loses_none() {
    let mut rig = Rig::start().await;
    rig.has_accepted(50).await;
    rig.disk.does("sync-slow");
    let (accepted, syncs) = (rig.ledger.accepted(), rig.server.metric(SYNCS));
    rig.has_accepted(accepted + 200).await;
    let (accepted, syncs) = (rig.ledger.accepted() - accepted, rig.server.metric(SYNCS) - syncs);
    assert!(syncs > 0 && syncs < accepted as u64 / 2, "{accepted} messages took {syncs} syncs: each waits for its own");
    rig.server.kill();
    rig.disk.does("pass");
    rig.server.start_again();
    rig.all_arrives_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_for_a_while_takes_nothing_and_then_everything() {
    let lab = Lab::start();
    let Some(disk) = SmallDisk::mount(lab.path("state/second-server")) else { return };
    let (address, reserve) = (free_address(), SMALL_DISK_RESERVE.to_string());
    let environment = [
        ("MSGIN5G_SERVER__LISTEN", address.as_str()),
        ("MSGIN5G_STORE__OPTIONS__DATABASE__FREE_BYTES_MIN", &reserve),
        ("MSGIN5G_STORE__OPTIONS__DATABASE__JOURNAL_BYTES_MAX", "67108864"),
    ];
    let server = Function::server_run_by(&lab, disk.runner(), &environment);
    let mut rig = Rig::with(lab, disk, server, address).await;
    for round in 1..=2 {
        rig.has_accepted(round * 100).await;
        rig.disk.fill();
        let refused = rig.server.metric(FULL);
        eventually("refusals", || rig.server.metric(FULL) > refused + 2 * (SENDERS * LANES) as u64).await;
        let accepted = rig.ledger.accepted();
        eventually("more refusals", || rig.server.metric(FULL) > refused + 5 * (SENDERS * LANES) as u64).await;
        // What was synced before the disk was full may have been answered after it.
        assert!(rig.ledger.accepted() <= accepted + SENDERS * LANES, "messages were promised on a full disk");
        assert_eq!(rig.server.admin("/readyz").0, 200, "it has not failed: there may be room again");
        if round == 2 {
            rig.server.kill();
            rig.server.start_again();
        }
        rig.disk.make_room();
    }
    rig.all_arrives_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_anchor_key_whose_sync_fails_is_not_answered_as_registered() {
    let lab = Lab::start();
    let listen = free_address();
    let mut disk = FaultyDisk::under(&lab, "state/second-aanf");
    let mut aanf = Function::aanf(&lab, &disk.environment(&[("MSGIN5G_LISTEN", &listen)]));
    let naanf = |name: &str| NaanfClient::new(client_of(&lab, name), format!("https://{listen}"));
    let (ausf, server) = (naanf("ausf"), naanf("server"));
    let register = async |number: u8| {
        let key = [number; 32];
        ausf.register_anchorkey(&AkmaKeyInfo {
            supp_feat: None,
            ue_id: format!("imsi-00101000000090{number}").parse().unwrap(),
            a_kid: a_kid(number),
            k_akma: KAkma::from_hex(&hex::encode(key)).unwrap(),
        })
        .await
    };
    let a_kid_is_known = async |number: u8| {
        let fqdn = lab.lab_json()["server"]["fqdn"].as_str().unwrap().parse().unwrap();
        let af_id = AfId::new(fqdn, UaProtocolId::TLS_1_3);
        server
            .retrieve_applicationkey(&AkmaAfKeyRequest::new(af_id, a_kid(number)))
            .await
            .is_ok_and(|key| key.is_some())
    };

    register(1).await.unwrap();
    disk.does("sync-fails");
    for number in [2, 3] {
        let Err(SbiError::Problem(problem)) = register(number).await else { panic!("{number} was registered") };
        assert!((500..600).contains(&problem.status.unwrap()), "{problem:?}");
    }
    assert!(disk.octets_lost() > 0);
    aanf.kill();
    disk.loses_power();
    aanf.start_again();
    assert!(a_kid_is_known(1).await, "it was answered as registered");
    assert!(!a_kid_is_known(2).await && !a_kid_is_known(3).await, "they were refused");
    register(2).await.unwrap();
    assert!(a_kid_is_known(2).await);
}

fn a_kid(number: u8) -> akma::AKid {
    format!("0{number}@5gc.mnc001.mcc001.3gppnetwork.org").parse().unwrap()
}

fn free_address() -> String {
    NobodyThere::new().address().to_string()
}

/// An MSGin5G Server on a disk that is not sound; senders that do not rest, and recipients that are away.
struct Rig<Disk> {
    lab: Lab,
    disk: Disk,
    server: Function,
    address: String,
    ledger: Arc<Ledger>,
    lanes: Vec<JoinHandle<()>>,
    recipients: Vec<FleetUe>,
}

#[derive(Default)]
struct Ledger {
    is_over: AtomicBool,
    accepted: Mutex<HashSet<(String, String)>>,
    arrived: Mutex<Vec<(String, String)>>,
}

impl Ledger {
    fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }
}

impl Rig<FaultyDisk> {
    async fn start() -> Self {
        let lab = Lab::start();
        let disk = FaultyDisk::under(&lab, "state/second-server");
        let address = free_address();
        let server = Function::server(&lab, &disk.environment(&[("MSGIN5G_SERVER__LISTEN", &address)]));
        Self::with(lab, disk, server, address).await
    }

    /// From the fault on the server says that it cannot store, and that it is not ready, and promises nothing any more.
    async fn takes_nothing_after(&mut self, fault: &str) {
        self.disk.does(fault);
        eventually("the fault", || self.disk.failures() == 1).await;
        eventually("the server not to be ready", || self.server.admin("/readyz").0 == 503).await;
        let (accepted, refused) = (self.ledger.accepted(), self.server.metric(REFUSED));
        // More than there were on their way when the fault came: the clients try again until they are told to stop.
        eventually("refusals", || self.server.metric(REFUSED) > refused + 2 * (SENDERS * LANES) as u64).await;
        assert_eq!(self.ledger.accepted(), accepted, "a message was promised on a disk that failed");
        let mut stranger = ForeignUe::new(&self.lab, 0);
        stranger.authenticate();
        stranger.connects(self.address.parse().unwrap(), TLS_1_3);
        let refused = stranger.register();
        assert_eq!((refused.code.as_str(), refused.cause()), ("5.03", Some("STORAGE_FAILED")));
    }
}

impl<Disk> Rig<Disk> {
    async fn with(lab: Lab, disk: Disk, server: Function, address: String) -> Self {
        let mut fleet = Fleet::provision(&lab, SENDERS + RECIPIENTS).await;
        for ue in &mut fleet.ues {
            ue.config.server.clone_from(&address);
        }
        let recipients = fleet.ues.split_off(SENDERS);
        for ue in &recipients {
            ue.connect().await.0.close().await;
        }
        let ledger = Arc::new(Ledger::default());
        let mut lanes = Vec::new();
        for (sender, ue) in fleet.ues.iter().enumerate() {
            let (client, incoming) = ue.connect().await;
            tokio::spawn(keep_taking(incoming, ue.service_id.to_string(), ledger.clone()));
            for lane in 0..LANES {
                let name = format!("{sender}.{lane}");
                lanes.push(tokio::spawn(keep_sending(client.clone(), name, recipients.clone(), ledger.clone())));
            }
        }
        Self { lab, disk, server, address, ledger, lanes, recipients }
    }

    async fn has_accepted(&self, count: usize) {
        eventually("messages to be accepted", || self.ledger.accepted() >= count).await;
    }

    async fn all_arrives_once(self) {
        let accepted = self.ledger.accepted();
        self.has_accepted(accepted + 2 * SENDERS * LANES).await;
        self.ledger.is_over.store(true, Ordering::SeqCst);
        for lane in self.lanes {
            lane.await.unwrap();
        }
        for ue in &self.recipients {
            let (client, incoming) = ue.connect().await;
            let ledger = self.ledger.clone();
            let name = ue.service_id.to_string();
            tokio::spawn(async move {
                keep_taking(incoming, name, ledger).await;
                drop(client);
            });
        }
        let arrived = || self.ledger.arrived.lock().unwrap().clone();
        let missing = || {
            let arrived: HashSet<_> = arrived().into_iter().collect();
            self.ledger.accepted.lock().unwrap().difference(&arrived).count()
        };
        eventually("everything that was accepted", || missing() == 0).await;
        let arrived = arrived();
        assert_eq!(arrived.len(), arrived.iter().collect::<HashSet<_>>().len(), "a message was handed over twice");
    }
}

/// One message after the other; one that is not accepted is sent again.
async fn keep_sending(client: Client, name: String, recipients: Vec<FleetUe>, ledger: Arc<Ledger>) {
    for number in 0.. {
        let to = &recipients[number % recipients.len()].service_id;
        let id = format!("{name}#{number}");
        let message =
            OutgoingMessage::to_ue(to, vec![b'x'; 200]).message_id(id.parse().unwrap()).store_and_forward(None);
        while !matches!(client.send(message.clone()).await, Ok(Outcome::Stored | Outcome::Delivered)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ledger.accepted.lock().unwrap().insert((to.to_string(), id));
        if ledger.is_over.load(Ordering::SeqCst) {
            return;
        }
    }
}

async fn keep_taking(mut incoming: IncomingStream, recipient: String, ledger: Arc<Ledger>) {
    while let Some(event) = incoming.next().await {
        let Incoming::Message(message) = event else { continue };
        let id = message.content().message_id.to_string();
        if message.accept().await.is_ok() {
            ledger.arrived.lock().unwrap().push((recipient.clone(), id));
        }
    }
}

/// A file system of 96 MiB in a namespace that lasts as long as this does.
struct SmallDisk {
    folder: PathBuf,
    namespaces: &'static str,
    holder: Child,
}

const SMALL_DISK: &str = "size=96m";
const SMALL_DISK_RESERVE: u64 = 16 * 1024 * 1024;

impl SmallDisk {
    /// `None` where the kernel does not let us mount; root, and a machine with `CI=true`, are to be able to.
    fn mount(folder: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&folder).unwrap();
        for namespaces in ["-m", "-Um"] {
            let mut holder = Command::new("unshare");
            holder.arg(namespaces).args((namespaces == "-Um").then_some("-r"));
            holder.args(["sh", "-c", "mount -t tmpfs -o \"$1\" none \"$0\" && echo mounted && exec cat"]);
            holder.arg(&folder).arg(SMALL_DISK).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut holder = holder.spawn().unwrap();
            let mut line = String::new();
            BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
            if line == "mounted\n" {
                return Some(Self { folder, namespaces, holder });
            }
            holder.wait().unwrap();
        }
        let id = Command::new("id").arg("-u").output().unwrap().stdout;
        let must = std::env::var("CI").is_ok_and(|ci| ci == "true") || id.trim_ascii() == b"0";
        assert!(!must, "no namespace to mount a small file system in");
        eprintln!("SKIPPED: no namespace to mount a small file system in, the disk is not filled");
        None
    }

    /// What runs a program so that it sees this file system.
    fn runner(&self) -> Vec<String> {
        let mut runner = vec!["nsenter".to_owned(), "-t".to_owned(), self.holder.id().to_string()];
        runner.push(self.namespaces.to_owned());
        if self.namespaces == "-Um" {
            runner.push("--preserve-credentials".to_owned());
        }
        runner
    }

    /// Leaves a little less free than the server keeps in reserve.
    fn fill(&self) {
        let target = SMALL_DISK_RESERVE / 1024 - 1024;
        self.run(&format!(
            "free=$(df -k --output=avail \"$0\" | tail -n 1); head -c $(((free - {target}) * 1024)) /dev/zero > \"$0/ballast\""
        ));
    }

    fn make_room(&self) {
        self.run("rm \"$0/ballast\"");
    }

    fn run(&self, script: &str) {
        let runner = self.runner();
        let (program, arguments) = runner.split_first().unwrap();
        let status = Command::new(program).args(arguments).args(["sh", "-c", script]).arg(&self.folder).status();
        assert!(status.unwrap().success(), "{script}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
