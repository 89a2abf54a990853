//! Sessions over a restart: real DTLS, real files.

use std::net::SocketAddr;
use std::time::Instant as StdInstant;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use coap::{DatagramConfig, DatagramConnection};
use tokio::time::Instant;
use transport::{
    DatagramCarrier, DatagramLink, DtlsClientConfig, DtlsClientSession, DtlsConnector, DtlsListener, DtlsServerConfig,
    LinkReceived, SealingKey,
};

use super::*;
use crate::hibernation::Sealing;
use crate::sealed::{Left, Restoring, Vault};
use crate::sessions::Connection;

pub(super) const K_AF: [u8; 32] = [1; 32];

pub(super) fn fqdn() -> Fqdn {
    "msgin5g.lab.example".parse().unwrap()
}

fn coap_of(net: &Net) -> Arc<DatagramConfig> {
    Arc::new(session::datagram_config(&net.core.limits, 1_232))
}

/// A UE over DTLS.
pub(super) struct Device {
    link: DtlsClientSession,
    machine: DatagramConnection,
    pub(super) requests: VecDeque<Request>,
    /// The last datagrams of CoAP, in the order they went and came.
    sent: Vec<u8>,
    heard: Vec<u8>,
}

impl Device {
    pub(super) async fn connect(to: SocketAddr) -> Self {
        let a_kid = peer(None, None).a_kid;
        let connector = DtlsConnector::new(DtlsClientConfig::default());
        let link = connector.connect(to, &fqdn(), &a_kid, |_| KAf::from_bytes(K_AF)).await.unwrap();
        Self {
            link,
            machine: DatagramConnection::new(Arc::default(), 9),
            requests: VecDeque::new(),
            sent: Vec::new(),
            heard: Vec::new(),
        }
    }

    fn flush(&mut self) {
        while let Some(datagram) = self.machine.poll_transmit() {
            self.link.send(StdInstant::now(), &datagram).unwrap();
            self.sent = datagram;
        }
    }

    /// Sends, and takes what comes; the answer, if it was one.
    pub(super) async fn turn(&mut self) -> Option<Response> {
        self.flush();
        let due = self.machine.poll_timeout().unwrap_or_else(|| StdInstant::now() + PATIENCE);
        let receive = std::future::poll_fn(|context| self.link.poll_receive(context, StdInstant::now()));
        match tokio::time::timeout_at(due.into(), receive).await {
            Ok(LinkReceived::Datagram(datagram)) => {
                self.machine.receive(&datagram, StdInstant::now()).unwrap();
                self.heard = datagram;
            }
            Ok(other) => panic!("the session ended: {other:?}"),
            Err(_) => self.machine.handle_timeout(StdInstant::now()),
        }
        let mut answer = None;
        while let Some(event) = self.machine.poll_event() {
            match event {
                StreamEvent::Request { request } => {
                    self.machine.respond(request.exchange, Response::new(Code::CHANGED), StdInstant::now()).unwrap();
                    self.requests.push_back(request);
                }
                StreamEvent::Response { response, .. } => answer = Some(response),
                _ => {}
            }
        }
        self.flush();
        answer
    }

    /// Sends a datagram of CoAP as it is, until something comes.
    async fn repeat(&mut self, datagram: &[u8]) -> Vec<u8> {
        timeout(PATIENCE, async {
            loop {
                self.link.send(StdInstant::now(), datagram).unwrap();
                let receive = std::future::poll_fn(|context| self.link.poll_receive(context, StdInstant::now()));
                match timeout(Duration::from_millis(200), receive).await {
                    Ok(LinkReceived::Datagram(datagram)) => return datagram,
                    Ok(other) => panic!("the session ended: {other:?}"),
                    Err(_) => {}
                }
            }
        })
        .await
        .unwrap()
    }

    /// Waits for the end of the session; what came before it.
    async fn ended(mut self) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        timeout(PATIENCE, async {
            loop {
                self.link.handle_timeout(StdInstant::now());
                let receive = std::future::poll_fn(|context| self.link.poll_receive(context, StdInstant::now()));
                match timeout(Duration::from_millis(200), receive).await {
                    Ok(LinkReceived::Datagram(datagram)) => heard.push(datagram),
                    Ok(_) => return,
                    Err(_) => {}
                }
            }
        })
        .await
        .unwrap();
        heard
    }

    /// Asks, and waits for nothing.
    pub(super) fn ask(&mut self, payload: &[u8]) {
        let request = Request::post("msgin5g").content_format(50).payload(payload.to_vec());
        self.machine.request(request, StdInstant::now()).unwrap();
        self.flush();
    }

    pub(super) async fn exchange(&mut self, payload: &[u8]) -> Response {
        self.ask(payload);
        timeout(PATIENCE, async {
            loop {
                if let Some(response) = self.turn().await {
                    break response;
                }
            }
        })
        .await
        .unwrap()
    }

    async fn received(&mut self) -> Message {
        timeout(PATIENCE, async {
            while self.requests.is_empty() {
                self.turn().await;
            }
        })
        .await
        .unwrap();
        match UeMessage::decode(&self.requests.pop_front().unwrap().payload, &DecodeLimits::default()).unwrap() {
            UeMessage::Message(message) => *message,
            other => panic!("not a message: {other:?}"),
        }
    }
}

fn restoring(net: &Net, listener: &DtlsListener) -> Restoring {
    let (coap, path) = (coap_of(net), "msgin5g".into());
    let (core, listener) = (Arc::clone(&net.core), listener.clone());
    Restoring { core, listener, coap, prove_new_addresses: true, path }
}

fn restore(net: &Net, listener: &DtlsListener, left: Left) -> usize {
    left.restore(&restoring(net, listener))
}

/// The datagram listener of a start.
struct Listening {
    listener: DtlsListener,
    reader: JoinHandle<()>,
}

impl Listening {
    /// `left`: what the start before has left, and how much of it goes on.
    async fn start(net: &Net, at: SocketAddr, left: Option<Left>) -> (Self, usize) {
        let keys = net.core.keys.clone().unwrap();
        // The start before may still hold the port.
        let mut bound = None;
        until(|| {
            bound = DtlsListener::bind(at, DtlsServerConfig::new(fqdn()), Arc::clone(&keys)).ok();
            bound.is_some()
        })
        .await;
        let (listener, mut sockets) = bound.unwrap();
        let restored = left.map_or(0, |left| restore(net, &listener, left));
        let coap = coap_of(net);
        let (core, mut socket) = (Arc::clone(&net.core), sockets.pop().unwrap());
        let reader = tokio::spawn(async move {
            loop {
                let arrival = socket.accept().await.unwrap();
                let (core, coap) = (Arc::clone(&core), Arc::clone(&coap));
                core.clone().tasks.spawn(async move {
                    let Ok(session) = arrival.handshake().await else { return };
                    let source = session.source().ip();
                    let (link, peer) = session.into_link();
                    let carrier = Box::new(DatagramCarrier::new(link, coap, true).unwrap());
                    let connection = Connection::over_datagrams(&core);
                    listener::serve_until_rest(&core, connection, carrier, peer, source, "msgin5g".into()).await;
                });
            }
        });
        (Self { listener, reader }, restored)
    }

    async fn end(self) -> SocketAddr {
        self.reader.abort();
        let _ = self.reader.await;
        self.listener.local_addr()
    }
}

/// A server whose sessions rest at once.
async fn resting_net() -> Net {
    resting_net_until(SystemTime::now() + Duration::from_secs(3_600)).await
}

/// The same, where K_AF expires then.
async fn resting_net_until(expires_at: SystemTime) -> Net {
    let proven = ProvenKey {
        k_af: KAf::from_bytes(K_AF),
        expires_at: Some(expires_at),
        ue_id: Some(supi_of("meter").parse().unwrap()),
        gpsi: None,
    };
    let keys = Arc::new(Keys { answer: Mutex::new(Some(Some(proven))), ..Keys::default() });
    let limits = Limits { datagram_freeze_milliseconds: 1, ..Limits::default() };
    let net = Net::of(Setup { limits, keys: Some(keys), ..Setup::default() }).await;
    net.associate(&supi_of("meter"), "meter");
    net
}

/// No sealing takes that long.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}

/// A start with one device, which is registered.
async fn started_with_a_device(net: &Net) -> (Listening, Device) {
    let (listening, _) = Listening::start(net, "127.0.0.1:0".parse().unwrap(), None).await;
    let mut meter = Device::connect(listening.listener.local_addr()).await;
    let registration = Registration { ue_service_id: "meter".parse().unwrap(), client_profile: None };
    assert_eq!(meter.exchange(&registration.encode()).await.code, Code::CREATED);
    (listening, meter)
}

/// A start with one device, whose session was sealed by its stop: the files are in `directory`.
async fn stopped_with_a_device(directory: &Path) -> (Net, Device, SocketAddr) {
    stopped_with_a_device_of(resting_net().await, directory).await
}

async fn stopped_with_a_device_of(net: Net, directory: &Path) -> (Net, Device, SocketAddr) {
    let (vault, left) = Vault::open(directory).unwrap();
    assert!(left.is_none());
    let (listening, meter) = started_with_a_device(&net).await;
    until(|| net.core.hibernation.count() == 1).await;
    assert_eq!(vault.seal_all(&net.core, Instant::now()).unwrap(), 0, "its time is over");
    assert_eq!(net.core.hibernation.count(), 1, "and it is as it was");
    // What cannot be sealed yet goes on.
    until(|| vault.seal_all(&net.core, soon()).unwrap() == 1).await;
    assert_eq!((net.core.hibernation.count(), listening.listener.sessions()), (0, 0));
    let at = listening.end().await;
    (net.restart().await, meter, at)
}

fn files(directory: &Path) -> [PathBuf; 2] {
    ["sessions.sealed", "sessions.key"].map(|name| directory.join(name))
}

/// As the server makes it.
fn put_back(path: &Path, octets: &[u8]) {
    fs::write(path, octets).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_session_that_rests_goes_on_after_a_restart_and_what_was_used_opens_nothing_again() {
    let directory = tempfile::tempdir().unwrap();
    let files = files(directory.path());
    let (net, mut meter, at) = stopped_with_a_device(directory.path()).await;
    let (registered, answer) = (meter.sent.clone(), meter.heard.clone());
    let sealed = fs::read(&files[0]).unwrap();

    let (vault, left) = Vault::open(directory.path()).unwrap();
    assert!(!files[0].exists(), "it is used once");
    let (listening, restored) = Listening::start(&net, at, left).await;
    assert_eq!((restored, listening.listener.sessions()), (1, 1));
    until(|| net.core.hibernation.count() == 1).await;
    assert_eq!(meter.repeat(&registered).await, answer, "a copy of what came before is answered alike");
    // Who sends to it is told nothing, and needs no handshake.
    let mut other = net.ue("other").await;
    let out = other.post(&message("other", "meter", "1")).await;
    let (received, fate) = tokio::join!(meter.received(), other.fate(out));
    assert_eq!((received.message_id.as_str(), fate), ("1", Fate::delivered()));
    let (answer, received) =
        tokio::join!(async { meter.exchange(&message("meter", "other", "2").encode()).await }, other.receive());
    assert_eq!((Fate::of(&answer), received.message_id.as_str()), (Fate::delivered(), "2"));
    assert_eq!(listening.listener.sessions(), 1);

    // It goes on over a further one.
    until(|| vault.seal_all(&net.core, soon()).unwrap() == 1).await;
    let at = listening.end().await;
    drop((other, vault));
    let net = net.restart().await;
    // Somebody puts back the file of the first stop: its key is no more.
    put_back(&files[0], &sealed);
    let (_vault, left) = Vault::open(directory.path()).unwrap();
    let (listening, restored) = Listening::start(&net, at, left).await;
    assert_eq!((restored, listening.listener.sessions()), (0, 0));
}

#[tokio::test]
async fn what_was_withdrawn_during_a_restart_ends_a_sealed_session_before_anything_is_taken_or_delivered() {
    for key in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let (net, mut meter, at) = stopped_with_a_device(directory.path()).await;
        match &net.setup.keys {
            Some(keys) if key => *keys.answer.lock().unwrap() = Some(None),
            _ => drop(net.associations.known.lock().unwrap().remove(&supi_of("meter"))),
        }
        let (_vault, left) = Vault::open(directory.path()).unwrap();
        let (listening, restored) = Listening::start(&net, at, left).await;
        assert_eq!(restored, 1);
        let mut other = net.ue("other").await;
        // From either side something comes for it.
        let request = Request::post("msgin5g").content_format(50).payload(message("meter", "other", "1").encode());
        meter.machine.request(request, StdInstant::now()).unwrap();
        meter.flush();
        assert_eq!(other.send(&storable("other", "meter", "2")).await, Fate::stored());
        let heard = meter.ended().await;
        let requests = |datagram: &&Vec<u8>| datagram.get(1) == Some(&Code::POST.octet());
        assert_eq!(heard.iter().filter(requests).count(), 0, "nothing was delivered");
        until(|| net.core.sessions.connections() == 0 && listening.listener.sessions() == 0).await;
        // All that was taken from it would have come before this.
        let mut third = net.ue("third").await;
        let out = third.post(&message("third", "other", "3")).await;
        assert_eq!(other.receive().await.message_id.as_str(), "3");
        assert_eq!(third.fate(out).await, Fate::delivered());
        assert_eq!(net.stored_for("meter"), 1);
    }
}

#[tokio::test]
async fn a_sealed_session_waits_for_the_answer_that_its_key_is_good() {
    let directory = tempfile::tempdir().unwrap();
    let (net, mut meter, at) = stopped_with_a_device(directory.path()).await;
    *net.associations.mood.lock().unwrap() = Mood::NeverAnswers;
    let (_vault, left) = Vault::open(directory.path()).unwrap();
    let (_listening, restored) = Listening::start(&net, at, left).await;
    assert_eq!(restored, 1);
    let asked = net.associations.asked.load(Ordering::Relaxed);
    let request = Request::post("msgin5g").content_format(50).payload(message("meter", "nobody", "1").encode());
    meter.machine.request(request, StdInstant::now()).unwrap();
    meter.flush();
    until(|| net.associations.asked.load(Ordering::Relaxed) > asked).await;
    // Its request is acknowledged as received at most: nobody answers it.
    let silent = timeout(Duration::from_secs(3), meter.turn()).await;
    assert!(!matches!(silent, Ok(Some(_))), "{silent:?}");
    assert_eq!(net.core.open_requests(), 0, "nothing was taken");
}

#[tokio::test]
async fn a_sealed_session_gives_way_to_a_newer_registration() {
    let directory = tempfile::tempdir().unwrap();
    let (net, meter, at) = stopped_with_a_device(directory.path()).await;
    let mut newer = net.ue("meter").await;
    let (_vault, left) = Vault::open(directory.path()).unwrap();
    let (listening, restored) = Listening::start(&net, at, left).await;
    assert_eq!((restored, listening.listener.sessions()), (0, 0));
    let mut other = net.ue("other").await;
    let out = other.post(&message("other", "meter", "1")).await;
    assert_eq!(newer.receive().await.message_id.as_str(), "1");
    assert_eq!(other.fate(out).await, Fate::delivered());
    drop(meter);
}

#[tokio::test]
async fn files_that_are_damaged_open_nothing_and_stop_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (net, mut meter, at) = stopped_with_a_device(directory.path()).await;
    let [sessions, key] = files(directory.path()).map(|path| fs::read(path).unwrap());
    let (listening, _) = Listening::start(&net, at, None).await;
    let with = |sessions: &[u8], key: &[u8]| {
        let directory = tempfile::tempdir().unwrap();
        let paths = files(directory.path());
        put_back(&paths[0], sessions);
        put_back(&paths[1], key);
        let (_vault, left) = Vault::open(directory.path()).unwrap();
        assert!(!paths[0].exists() && fs::read(&paths[1]).unwrap() != key);
        left.map_or(0, |left| restore(&net, &listening.listener, left))
    };
    for at in (0..sessions.len() - 2).step_by(5) {
        let mut changed = sessions.clone();
        changed[at] ^= 0x40;
        assert_eq!(with(&changed, &key), 0, "octet {at}");
    }
    for octets in (0..sessions.len() - 2).step_by(19) {
        assert_eq!(with(&sessions[..octets], &key), 0, "{octets} octets");
    }
    assert_eq!(with(&sessions, &key[1..]), 0);
    assert_eq!(with(&sessions, &[&key[..], b"1"].concat()), 0);
    assert_eq!(with(b"", &key), 0);
    assert_eq!(with(&vec![0xff; 1 << 20], &key), 0);
    assert_eq!(listening.listener.sessions(), 0);
    // What is whole goes on, whatever follows it.
    assert_eq!(with(&[&sessions[..sessions.len() - 2], &[0xff; 3]].concat(), &key), 1);
    assert_eq!(meter.exchange(&message("meter", "nobody", "1").encode()).await.code, Code::NOT_FOUND);
}

#[tokio::test]
async fn a_stop_that_was_killed_while_it_sealed_leaves_nothing_to_open() {
    let directory = tempfile::tempdir().unwrap();
    let (net, meter, at) = stopped_with_a_device(directory.path()).await;
    let [sessions, key] = files(directory.path());
    let unfinished = directory.path().join("sessions.sealed.new");
    let written = fs::read(&sessions).unwrap();
    fs::remove_file(&sessions).unwrap();
    fs::write(&unfinished, &written[..written.len() / 2]).unwrap();
    let before = fs::read(&key).unwrap();
    let (_vault, left) = Vault::open(directory.path()).unwrap();
    assert!(left.is_none() && !unfinished.exists());
    assert_ne!(fs::read(&key).unwrap(), before);
    let (listening, restored) = Listening::start(&net, at, left).await;
    assert_eq!((restored, listening.listener.sessions()), (0, 0));
    drop(meter);
    let mut anew = Device::connect(at).await;
    let registration = Registration { ue_service_id: "meter".parse().unwrap(), client_profile: None };
    assert_eq!(anew.exchange(&registration.encode()).await.code, Code::CREATED);
}

/// Seals the only session, as soon as it is quiet.
async fn sealed<'a>(net: &'a Net, key: &'a SealingKey) -> Sealing<'a> {
    let mut sealing = None;
    until(|| {
        let mut attempt = Sealing::new(&net.core, key, soon());
        sealing = attempt.next().map(|_| attempt);
        sealing.is_some()
    })
    .await;
    sealing.unwrap()
}

#[tokio::test]
async fn while_its_form_is_not_stored_a_sealed_session_says_and_takes_nothing_and_then_is_stored_or_goes_on() {
    let key = SealingKey::new(&[7; 32], 1).unwrap();
    for is_stored in [true, false] {
        let net = resting_net().await;
        let (listening, mut meter) = started_with_a_device(&net).await;
        let (mut other, mut third) = (net.ue("other").await, net.ue("third").await);
        let sealing = sealed(&net, &key).await;
        let request = Request::post("msgin5g").content_format(50).payload(message("meter", "other", "1").encode());
        meter.machine.request(request, StdInstant::now()).unwrap();
        meter.flush();
        let out = other.post(&storable("other", "meter", "2")).await;
        until(|| net.core.open_requests() == 1).await;
        // What was taken from it would have come before this.
        let after = third.post(&message("third", "other", "3")).await;
        assert_eq!(other.receive().await.message_id.as_str(), "3");
        assert_eq!(third.fate(after).await, Fate::delivered());
        assert_eq!((net.core.hibernation.count(), net.core.open_requests()), (0, 1), "nothing was delivered");
        if is_stored {
            assert_eq!(sealing.stored(), 1);
            assert_eq!(other.fate(out).await, Fate::stored());
            assert_eq!((listening.listener.sessions(), net.stored_for("meter")), (0, 1));
            // Nothing was said to it: what it says goes unanswered.
            let answered = async { while meter.turn().await.is_none() {} };
            assert!(timeout(Duration::from_secs(3), answered).await.is_err());
        } else {
            drop(sealing);
            let (received, fate) = tokio::join!(meter.received(), other.fate(out));
            assert_eq!((received.message_id.as_str(), fate), ("2", Fate::delivered()));
            assert_eq!(listening.listener.sessions(), 1);
            // It says again what was not heard.
            let answered = async {
                loop {
                    if let Some(answer) = meter.turn().await {
                        break Fate::of(&answer);
                    }
                }
            };
            let (received, fate) = tokio::join!(other.receive(), timeout(PATIENCE, answered));
            assert_eq!(fate.unwrap(), Fate::delivered());
            assert_eq!(received.message_id.as_str(), "1");
        }
    }
}

#[tokio::test]
async fn sessions_that_cannot_be_stored_are_told_their_end_and_nothing_is_left_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let net = resting_net().await;
    let (vault, _) = Vault::open(directory.path()).unwrap();
    let (listening, mut meter) = started_with_a_device(&net).await;
    let key = SealingKey::new(&[7; 32], 1).unwrap();
    drop(sealed(&net, &key).await);
    assert_eq!(net.core.hibernation.count(), 1, "it can be sealed");
    // The file is written whole, and does not get into its place.
    let [sessions, _] = files(directory.path());
    fs::create_dir(&sessions).unwrap();
    assert!(vault.seal_all(&net.core, soon()).is_err());
    assert!(!directory.path().join("sessions.sealed.new").exists());
    assert_eq!(meter.exchange(&message("meter", "nobody", "1").encode()).await.code, Code::NOT_FOUND);
    until(|| net.core.hibernation.count() == 1).await;
    net.core.sessions.stop_all();
    meter.ended().await;
    until(|| net.core.sessions.connections() == 0 && listening.listener.sessions() == 0).await;
    drop(vault);
    fs::remove_dir(&sessions).unwrap();
    assert!(Vault::open(directory.path()).unwrap().1.is_none());
}

#[tokio::test]
async fn while_sealed_sessions_are_read_everything_else_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (net, mut meter, at) = stopped_with_a_device(directory.path()).await;
    let [sessions, key] = files(directory.path());
    let (written, before) = (fs::read(&sessions).unwrap(), fs::read(&key).unwrap());
    fs::remove_file(&sessions).unwrap();
    // In place of the file something that is read as slowly as it is written: from a disk that is busy.
    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&sessions).status().unwrap();
    assert!(made.success());
    let (go_on, told) = std::sync::mpsc::channel();
    let slow = sessions.clone();
    let disk = std::thread::spawn(move || {
        let mut file = fs::File::options().write(true).open(slow).unwrap();
        let (half, rest) = written.split_at(written.len() / 2);
        file.write_all(half).unwrap();
        let _ = told.recv_timeout(PATIENCE);
        file.write_all(rest).unwrap();
    });
    let (listening, _) = Listening::start(&net, at, None).await;
    let reading = tokio::spawn(restoring(&net, &listening.listener).open(directory.path().to_owned()));
    until(|| fs::read(&key).unwrap() != before).await;
    // This test has one thread for all its tasks.
    let (mut other, mut third) = (net.ue("other").await, net.ue("third").await);
    let out = other.post(&message("other", "third", "1")).await;
    assert_eq!(third.receive().await.message_id.as_str(), "1");
    assert_eq!(other.fate(out).await, Fate::delivered());
    assert!(!reading.is_finished(), "half of it is still to come");
    go_on.send(()).unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), 1);
    disk.join().unwrap();
    assert_eq!(meter.exchange(&message("meter", "nobody", "1").encode()).await.code, Code::NOT_FOUND);
    // And from here on this start seals there.
    until(|| net.core.hibernation.count() == 1).await;
    net.core.seal_sessions(soon());
    assert!(sessions.exists());
}

#[tokio::test]
async fn what_others_could_have_written_opens_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (net, _meter, at) = stopped_with_a_device(directory.path()).await;
    let [sessions, key] = files(directory.path()).map(|path| fs::read(path).unwrap());
    let (listening, _) = Listening::start(&net, at, None).await;
    let with = |modes: [u32; 3]| {
        let directory = tempfile::tempdir().unwrap();
        let paths = files(directory.path());
        put_back(&paths[0], &sessions);
        put_back(&paths[1], &key);
        for (path, mode) in [&paths[0], &paths[1], directory.path()].into_iter().zip(modes) {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let (_vault, left) = Vault::open(directory.path()).unwrap();
        assert!(!paths[0].exists() && fs::read(&paths[1]).unwrap() != key && mode(directory.path()) == 0o700);
        left.map_or(0, |left| restore(&net, &listening.listener, left))
    };
    for modes in [[0o620, 0o600, 0o700], [0o600, 0o640, 0o700], [0o600, 0o606, 0o700], [0o600, 0o600, 0o770]] {
        assert_eq!(with(modes), 0, "{modes:?}");
    }
    assert_eq!(with([0o600, 0o600, 0o755]), 1, "nobody else could");
}

#[tokio::test]
async fn the_directory_of_sealed_sessions_is_its_owner_s_alone_and_one_server_s() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("sealed");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    // Somebody has made files there for all to read.
    for name in ["sessions.key.new", "sessions.sealed.new"] {
        fs::write(directory.join(name), "").unwrap();
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    let net = resting_net().await;
    let (vault, _) = Vault::open(&directory).unwrap();
    fs::write(directory.join("sessions.sealed.new"), "").unwrap();
    fs::set_permissions(directory.join("sessions.sealed.new"), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(vault.seal_all(&net.core, soon()).unwrap(), 0);
    assert_eq!(mode(&directory), 0o700);
    for path in files(&directory) {
        assert_eq!(mode(&path), 0o600, "{path:?}");
    }
    let key = fs::read(directory.join("sessions.key")).unwrap();
    assert!(Vault::open(&directory).is_err(), "another server has it");
    assert_eq!(fs::read(directory.join("sessions.key")).unwrap(), key);
    drop(vault);
    assert!(Vault::open(&directory).is_ok());
}

#[tokio::test]
async fn a_session_whose_k_af_expired_while_nobody_ran_does_not_go_on() {
    let directory = tempfile::tempdir().unwrap();
    // Longer than it takes to have the session sealed.
    let expires_at = SystemTime::now() + Duration::from_secs(15);
    let net = resting_net_until(expires_at).await;
    let (net, _meter, at) = stopped_with_a_device_of(net, directory.path()).await;
    until(|| SystemTime::now() > expires_at).await;
    let (_vault, left) = Vault::open(directory.path()).unwrap();
    let (listening, restored) = Listening::start(&net, at, left).await;
    assert_eq!((restored, net.core.hibernation.count(), net.core.sessions.connections()), (0, 0, 0));
    until(|| listening.listener.sessions() == 0).await;
    let party = net.core.registry.find(&address("meter")).unwrap();
    assert!(crate::sync::lock(&party.state).carrier.is_none(), "its UE is away");
}
