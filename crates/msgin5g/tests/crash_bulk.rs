//! `kill -9` with many messages on disk for many UEs: while they are stored, while long ones are put together, while some
//! are copied to all members of a group and all subscribers of a topic, and while they are fetched. What was answered as
//! safe arrives, each message once at the application, in order per pair and priority.
//!
//! `MSGIN5G_CRASH_ROUNDS` kills (20), `MSGIN5G_CRASH_UES` recipients (100), at least `MSGIN5G_CRASH_MESSAGES` messages
//! (4,000) unless given; `cargo xtask crash` says how to run it larger. Load goes on until the last kill of its kind.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, reason = "the figures of a run are for whoever runs it")]

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::{Client, Incoming, IncomingStream, Outcome, OutgoingMessage};
use common::Lab;
use common::fleet::{Fleet, FleetUe};
use futures_util::{StreamExt, stream};
use message::Priority;

/// Originator and Message ID.
type Name = (String, String);

/// What was promised, and what came, by recipient.
#[derive(Default)]
struct Ledger {
    promised: Mutex<HashMap<String, HashSet<Name>>>,
    arrived: Mutex<HashMap<String, Vec<Name>>>,
    promises: AtomicUsize,
    arrivals: AtomicUsize,
}

impl Ledger {
    fn promise(&self, recipient: &str, name: Name) {
        self.promised.lock().unwrap().entry(recipient.to_owned()).or_default().insert(name);
        self.promises.fetch_add(1, Ordering::Relaxed);
    }

    fn arrive(&self, recipient: &str, name: Name) {
        self.arrived.lock().unwrap().entry(recipient.to_owned()).or_default().push(name);
        self.arrivals.fetch_add(1, Ordering::Relaxed);
    }

    /// What was promised and has not come yet.
    fn missing(&self) -> Vec<(String, Name)> {
        let arrived = self.arrived.lock().unwrap();
        let promised = self.promised.lock().unwrap();
        let mut missing = Vec::new();
        for (recipient, names) in promised.iter() {
            let came: HashSet<_> = arrived.get(recipient).into_iter().flatten().collect();
            missing
                .extend(names.iter().filter(|name| !came.contains(name)).map(|name| (recipient.clone(), name.clone())));
        }
        missing
    }
}

/// Settings of a run.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Ids of a stream are `<lane>-<priority>#<number>`, and a stream is sent one at a time.
const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Middle, Priority::Low];

/// Senders, and messages each has on its way at once. So many senders that none fills its share of the disk, which would
/// make it wait.
const SENDERS: usize = 8;
const LANES: usize = 8;

/// Octets of a long message: three segments of a UE's. Every tenth recipient takes so little at once that the server puts
/// them together and cuts them anew.
const LONG_OCTETS: usize = 5_000;
const SMALL_SEGMENT_OCTETS: u32 = 1_000;

/// The group of all recipients and senders, and the topic that all recipients subscribe to.
const GROUP: &str = "everybody@lab.example";
const TOPIC: &str = "lab/everybody";

/// One long message, and one to the group or topic, for so many ordinary ones.
const LONG_SHARE: usize = 10;
const MANY_SHARE: usize = 600;

/// Kills in a hundred for each kind of work.
const STORING: usize = 30;
const PUTTING_TOGETHER: usize = 20;
const COPYING: usize = 20;
const FETCHING: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_with_a_full_store_loses_nothing_and_repeats_nothing() {
    let rounds = setting("MSGIN5G_CRASH_ROUNDS", 20);
    let ues = setting("MSGIN5G_CRASH_UES", 100);
    let messages = setting("MSGIN5G_CRASH_MESSAGES", 4_000);
    let mut lab = Lab::start();
    let mut fleet = Fleet::provision(&lab, ues + SENDERS).await;
    for small in fleet.ues.iter_mut().skip(SENDERS).step_by(10) {
        small.config.segment_size = Some(SMALL_SEGMENT_OCTETS);
    }
    fleet.group(&lab, GROUP).await;
    let (senders, recipients) = fleet.ues.split_at(SENDERS);
    let ledger = Arc::new(Ledger::default());

    // Every recipient registers once, subscribes, and goes away.
    let topic = [TOPIC.parse().unwrap()];
    let come_and_go = async |ue: &FleetUe| {
        let (client, _incoming) = ue.connect().await;
        client.subscribe(&topic, None).await.unwrap();
        client.close().await;
    };
    stream::iter(recipients).for_each_concurrent(32, come_and_go).await;
    let (mut clients, mut taking) = (Vec::new(), Vec::new());
    for sender in senders {
        let (client, incoming) = sender.connect().await;
        clients.push(client);
        taking.push(tokio::spawn(keep_taking(incoming, sender.service_id.to_string(), ledger.clone())));
    }

    let share = |part: usize| messages.div_ceil(SENDERS * LANES * part);
    let sending = Sending {
        clients,
        recipients: recipients.to_vec(),
        ledger: ledger.clone(),
        is_disturbed: Arc::new(AtomicBool::new(false)),
    };
    let mut killed = 0;
    for (what, kind, count, of_hundred) in [
        ("storing", Kind::Short, share(1), STORING),
        ("putting together", Kind::Long, share(LONG_SHARE), PUTTING_TOGETHER),
        ("copying to many", Kind::Many, share(MANY_SHARE), COPYING),
        ("fetching", Kind::Fresh, 1, FETCHING),
    ] {
        if matches!(kind, Kind::Fresh) {
            taking.extend(recipients.iter().map(|ue| tokio::spawn(keep_fetching(ue.clone(), ledger.clone()))));
        }
        sending.is_disturbed.store(true, Ordering::SeqCst);
        let lanes = tokio::spawn(sending.clone().all(kind, count));
        let kills = (rounds * of_hundred).div_ceil(100);
        kill(&mut lab, kills, kind, &ledger).await;
        killed += kills;
        sending.is_disturbed.store(false, Ordering::SeqCst);
        lanes.await.unwrap();
        let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        let (promised, arrived) = (count(&ledger.promises), count(&ledger.arrivals));
        println!("{kills} kills while {what}: {promised} promised and {arrived} arrived in all");
    }
    assert!(killed >= rounds);
    wait_until_all_arrived(&ledger, &lab).await;
    assert!(taking.iter().all(|task| !task.is_finished()), "they end only by a failed assertion");

    let arrived = ledger.arrived.lock().unwrap();
    for (recipient, names) in arrived.iter() {
        let distinct: HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{recipient} was handed a message twice");
        in_order(recipient, names);
    }
    let promised = ledger.promises.load(Ordering::Relaxed);
    assert!(promised >= messages, "all messages were to be promised");
    println!("{killed} kills: {promised} promised, all of them arrived, each once and in order");
}

/// Kills and starts the lab again, each time while the server does what is asked of it, at moments that differ from round to
/// round.
async fn kill(lab: &mut Lab, rounds: usize, kind: Kind, ledger: &Ledger) {
    let progress = || match kind {
        Kind::Fresh => ledger.arrivals.load(Ordering::Relaxed),
        Kind::Short | Kind::Long | Kind::Many => ledger.promises.load(Ordering::Relaxed),
    };
    for round in 0..rounds {
        let before = progress();
        let waited = Instant::now();
        while progress() == before {
            assert!(waited.elapsed() < STANDSTILL_MAX, "the server does nothing that could be disturbed");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_millis((round as u64 * 97 + kind as u64 * 41) % 400)).await;
        lab.kill();
        lab.start_again();
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Short,
    Long,
    /// To the group and to the topic in turn.
    Many,
    /// A short one while its recipient fetches what was stored before.
    Fresh,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Short => "Short",
            Self::Long => "Long",
            Self::Many => "Group",
            Self::Fresh => "Fresh",
        }
    }
}

/// What the lanes share.
#[derive(Clone)]
struct Sending {
    clients: Vec<Client>,
    recipients: Vec<FleetUe>,
    ledger: Arc<Ledger>,
    is_disturbed: Arc<AtomicBool>,
}

impl Sending {
    /// So many messages in each lane of each sender, and more while there are kills to come, spread over recipients and
    /// priorities.
    async fn all(self, kind: Kind, count: usize) {
        let lanes = self.clients.iter().enumerate().flat_map(|(number, client)| {
            let sending = &self;
            (0..LANES).map(move |lane| tokio::spawn(sending.clone().lane(client.clone(), number, lane, kind, count)))
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.unwrap();
        }
    }

    /// One at a time: what one lane sends to one recipient with one priority has a known order.
    async fn lane(self, client: Client, sender: usize, lane: usize, kind: Kind, count: usize) {
        let mine: Vec<_> = self.recipients.iter().skip(lane).step_by(LANES).collect();
        for number in 0.. {
            if number >= count && !self.is_disturbed.load(Ordering::SeqCst) {
                return;
            }
            // Each recipient gets some of all priorities, and which get the long ones differs from lane to lane.
            let Some(recipient) = mine.get((number + sender * 7) % mine.len().max(1)) else { return };
            let priority = PRIORITIES[(number / mine.len() + number) % 3];
            // Messages to a group do not wait for those to a topic.
            let kind_name = if matches!(kind, Kind::Many) && is_to_topic(number) { "Topic" } else { kind.name() };
            let id = format!("{sender}.{lane}.{kind_name}-{priority:?}#{number}");
            let message = match kind {
                Kind::Short | Kind::Fresh => OutgoingMessage::to_ue(&recipient.service_id, vec![b'x'; 200]),
                Kind::Long => OutgoingMessage::to_ue(&recipient.service_id, vec![b'x'; LONG_OCTETS]),
                Kind::Many if is_to_topic(number) => {
                    OutgoingMessage::to_topic(&TOPIC.parse().unwrap(), vec![b'x'; 200])
                }
                Kind::Many => OutgoingMessage::to_group(&GROUP.parse().unwrap(), vec![b'x'; 200]),
            };
            let message = message.message_id(id.parse().unwrap()).priority(priority).store_and_forward(None);
            // Too many at once, or the server is going down: the same message again.
            while !matches!(client.send(message.clone()).await, Ok(Outcome::Stored | Outcome::Delivered)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            self.promised(&client, recipient, kind, number, &id);
        }
    }

    fn promised(&self, client: &Client, recipient: &FleetUe, kind: Kind, number: usize, id: &str) {
        let originator = client.config().ue_service_id.to_string();
        if !matches!(kind, Kind::Many) {
            return self.ledger.promise(recipient.service_id.as_str(), (originator, id.to_owned()));
        }
        let recipients = self.recipients.iter().map(|ue| ue.service_id.to_string());
        let senders = self.clients.iter().map(|client| client.config().ue_service_id.to_string());
        // The senders belong to the group, and have not subscribed.
        let senders = senders.filter(|sender| !is_to_topic(number) && *sender != originator);
        for member in recipients.chain(senders) {
            self.ledger.promise(&member, (originator.clone(), id.to_owned()));
        }
    }
}

/// Of the messages to many, every other one.
fn is_to_topic(number: usize) -> bool {
    !number.is_multiple_of(2)
}

async fn keep_fetching(ue: FleetUe, ledger: Arc<Ledger>) {
    let (_client, incoming) = ue.connect().await;
    keep_taking(incoming, ue.service_id.to_string(), ledger).await;
}

async fn keep_taking(mut incoming: IncomingStream, recipient: String, ledger: Arc<Ledger>) {
    while let Some(event) = incoming.next().await {
        let Incoming::Message(message) = event else { continue };
        let content = message.content();
        let name = (content.originator.addr.to_string(), content.message_id.to_string());
        let octets = if name.1.contains("Long") { LONG_OCTETS } else { 200 };
        assert!(content.segment.is_none() && content.payload.len() == octets, "{recipient} got a piece of {name:?}");
        if message.accept().await.is_ok() {
            ledger.arrive(&recipient, name);
        }
    }
}

/// So long without an arrival is far beyond any honest delay, and turns a loss into a failure.
const STANDSTILL_MAX: Duration = Duration::from_secs(120);

async fn wait_until_all_arrived(ledger: &Ledger, lab: &Lab) {
    let (mut arrivals, mut moved) = (0, Instant::now());
    loop {
        let missing = ledger.missing();
        if missing.is_empty() {
            return;
        }
        let now = ledger.arrivals.load(Ordering::Relaxed);
        if now != arrivals {
            (arrivals, moved) = (now, Instant::now());
        }
        if moved.elapsed() > STANDSTILL_MAX {
            panic!("{}", what_is_missing(&missing, ledger, lab));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Where to begin to look.
fn what_is_missing(missing: &[(String, Name)], ledger: &Ledger, lab: &Lab) -> String {
    let arrived = ledger.arrived.lock().unwrap();
    let mut recipients: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (recipient, _) in missing {
        let came = arrived.get(recipient).map_or(0, Vec::len);
        recipients.entry(recipient).or_insert((0, came)).0 += 1;
    }
    let some = &missing[..missing.len().min(5)];
    format!(
        "{} promised messages never arrived, such as {some:?}; recipients, what each misses and got: {recipients:?}; \
         the server: {}",
        missing.len(),
        lab.metrics()
    )
}

/// What one lane sent with one priority came in the order sent.
fn in_order(recipient: &str, names: &[Name]) {
    let mut last: HashMap<(&str, &str), u64> = HashMap::new();
    for (originator, id) in names {
        let (stream, number) = id.rsplit_once('#').unwrap();
        let number = number.parse().unwrap();
        let previous = last.insert((originator, stream), number);
        assert!(previous.is_none_or(|previous| previous < number), "{recipient} got {id} after number {previous:?}");
    }
}
