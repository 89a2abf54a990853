//! Sessions over datagrams: a UE that sleeps, moves, or sends everything twice.

use std::task::{Context, Poll};
use std::time::Instant as StdInstant;

use coap::{DatagramConfig, DatagramConnection, Transmission};
use tokio::sync::mpsc;
use transport::{DatagramCarrier, DatagramLink, LinkReceived};

use super::*;
use crate::delivery::{Answer, Asker, Collector, Delivery};
use crate::mailbox::Mailbox;
use crate::sessions::Connection;

/// Both ends of what is DTLS otherwise.
struct Link {
    inbound: mpsc::UnboundedReceiver<LinkReceived>,
    outbound: mpsc::UnboundedSender<Vec<u8>>,
    probe: Arc<Probe>,
}

/// What a link is asked, and how it behaves.
#[derive(Default)]
pub(super) struct Probe {
    /// How often it was asked to freeze.
    pub(super) asked: AtomicUsize,
    /// It has no Connection ID, so to say.
    pub(super) never_freezes: AtomicBool,
    /// How often something was to be received since it froze last, and at which time it panics, if at any.
    receives: AtomicUsize,
    pub(super) panics_at: AtomicUsize,
}

impl DatagramLink for Link {
    fn datagram_octets_max(&self) -> usize {
        1_152
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, _: StdInstant) -> Poll<LinkReceived> {
        let receives = self.probe.receives.fetch_add(1, Ordering::SeqCst) + 1;
        assert_ne!(receives, self.probe.panics_at.load(Ordering::SeqCst), "as this test wants it");
        self.inbound.poll_recv(context).map(|received| received.unwrap_or(LinkReceived::End))
    }

    fn send(&mut self, _: StdInstant, payload: &[u8]) -> std::io::Result<()> {
        let _ = self.outbound.send(payload.to_vec());
        Ok(())
    }

    fn poll_timeout(&self) -> Option<StdInstant> {
        None
    }

    fn handle_timeout(&mut self, _: StdInstant) {}

    fn close(&mut self, _: StdInstant) {
        self.inbound.close();
    }

    fn freeze(&mut self) -> bool {
        self.probe.asked.fetch_add(1, Ordering::SeqCst);
        self.probe.receives.store(0, Ordering::SeqCst);
        self.inbound.is_empty()
    }

    fn can_freeze(&self) -> bool {
        !self.probe.never_freezes.load(Ordering::SeqCst)
    }
}

/// A UE over datagrams.
pub(super) struct Device {
    machine: DatagramConnection,
    to_server: mpsc::UnboundedSender<LinkReceived>,
    from_server: mpsc::UnboundedReceiver<Vec<u8>>,
    /// It sends everything twice.
    pub(super) stutters: bool,
    pub(super) requests: VecDeque<Request>,
    responses: Vec<(ExchangeId, Response)>,
    session: JoinHandle<Option<Ended>>,
    pub(super) probe: Arc<Probe>,
}

impl Device {
    pub(super) fn connect_as(net: &Net, peer: ProvenPeer) -> Self {
        Self::connect_with(net, peer, |_| {})
    }

    fn connect_with(net: &Net, peer: ProvenPeer, transmission: impl FnOnce(&mut Transmission)) -> Self {
        let (to_server, inbound) = mpsc::unbounded_channel();
        let (outbound, from_server) = mpsc::unbounded_channel();
        let mut config = session::datagram_config(&net.core.limits, 1_232);
        transmission(&mut config.transmission);
        let config = Arc::new(config);
        let probe = Arc::<Probe>::default();
        let link = Link { inbound, outbound, probe: Arc::clone(&probe) };
        let carrier = Box::new(DatagramCarrier::new(link, config, true).unwrap());
        let core = Arc::clone(&net.core);
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let connection = Connection::over_datagrams(&core);
        let session = tokio::spawn(async move {
            listener::serve_until_rest(&core, connection, carrier, peer, source, "msgin5g".into()).await
        });
        Self {
            machine: DatagramConnection::new(Arc::new(DatagramConfig::default()), 7),
            to_server,
            from_server,
            stutters: false,
            requests: VecDeque::new(),
            responses: Vec::new(),
            session,
            probe,
        }
    }

    pub(super) async fn registered(net: &Net, name: &str) -> Self {
        Self::registered_with(net, name, |_| {}).await
    }

    async fn registered_with(net: &Net, name: &str, transmission: impl FnOnce(&mut Transmission)) -> Self {
        let supi = supi_of(name);
        net.associate(&supi, name);
        let mut device = Self::connect_with(net, peer(Some(&supi), None), transmission);
        let registration = Registration { ue_service_id: name.parse().unwrap(), client_profile: None };
        assert_eq!(device.exchange(&registration.encode()).await.code, Code::CREATED);
        device
    }

    fn flush(&mut self) {
        while let Some(datagram) = self.machine.poll_transmit() {
            for _ in 0..=usize::from(self.stutters) {
                let _ = self.to_server.send(LinkReceived::Datagram(datagram.clone()));
            }
        }
    }

    pub(super) fn moves(&self) {
        self.to_server.send(LinkReceived::Moved).unwrap();
    }

    /// What it is asked at a new address: a GET under a token of eight octets, which it has not answered yet.
    async fn question(&mut self) -> Vec<u8> {
        loop {
            let datagram = timeout(PATIENCE, self.from_server.recv()).await.unwrap().unwrap();
            if datagram.starts_with(&[0x48, Code::GET.octet()]) {
                return datagram;
            }
        }
    }

    /// Says that there is no such resource, under the token, which proves its address.
    fn answer(&self, question: &[u8]) {
        let answer = [&[0x68, Code::NOT_FOUND.octet()], &question[2..]].concat();
        self.to_server.send(LinkReceived::Datagram(answer)).unwrap();
    }

    /// Takes one datagram, and sorts what came.
    pub(super) async fn turn(&mut self) {
        self.flush();
        let datagram = timeout(PATIENCE, self.from_server.recv()).await.unwrap().expect("the session is there");
        for _ in 0..=usize::from(self.stutters) {
            self.machine.receive(&datagram, StdInstant::now()).unwrap();
        }
        self.sort();
    }

    fn sort(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                StreamEvent::Request { request } => self.requests.push_back(request),
                StreamEvent::Response { exchange, response } => self.responses.push((exchange, response)),
                _ => {}
            }
        }
        self.flush();
    }

    pub(super) fn ask(&mut self, payload: &[u8]) -> ExchangeId {
        let request = Request::post("msgin5g").content_format(50).payload(payload.to_vec());
        let exchange = self.machine.request(request, StdInstant::now()).unwrap();
        self.flush();
        exchange
    }

    pub(super) async fn exchange(&mut self, payload: &[u8]) -> Response {
        let exchange = self.ask(payload);
        loop {
            if let Some(index) = self.responses.iter().position(|(answered, _)| *answered == exchange) {
                return self.responses.remove(index).1;
            }
            self.turn().await;
        }
    }

    pub(super) async fn send(&mut self, message: &Message) -> Fate {
        let response = self.exchange(&message.encode()).await;
        Fate::of(&response)
    }

    pub(super) async fn receive(&mut self) -> Message {
        while self.requests.is_empty() {
            self.turn().await;
        }
        let request = self.requests.pop_front().unwrap();
        self.machine.respond(request.exchange, Response::new(Code::CHANGED), StdInstant::now()).unwrap();
        self.flush();
        match UeMessage::decode(&request.payload, &DecodeLimits::default()).unwrap() {
            UeMessage::Message(message) => *message,
            other => panic!("not a message: {other:?}"),
        }
    }

    /// Waits for the server to end the session.
    pub(super) async fn ended(self) -> Ended {
        timeout(PATIENCE, self.session).await.unwrap().unwrap().expect("it did not rest")
    }

    /// Waits for the server to end the session, whether it rested or not.
    pub(super) async fn is_closed(&self) {
        timeout(PATIENCE, self.to_server.closed()).await.unwrap();
    }

    /// How often its session's link was asked to freeze.
    pub(super) fn asked(&self) -> usize {
        self.probe.asked.load(Ordering::SeqCst)
    }

    /// Sends a datagram as it is.
    pub(super) fn send_datagram(&self, datagram: Vec<u8>) {
        let _ = self.to_server.send(LinkReceived::Datagram(datagram));
    }

    /// What the machine has to send, without sending it.
    pub(super) fn take_datagram(&mut self) -> Vec<u8> {
        self.machine.poll_transmit().unwrap()
    }

    /// A request that is not sent yet.
    pub(super) fn prepare(&mut self, payload: &[u8]) -> ExchangeId {
        let request = Request::post("msgin5g").content_format(50).payload(payload.to_vec());
        self.machine.request(request, StdInstant::now()).unwrap()
    }

    /// The next datagram of the server, unseen by the machine.
    pub(super) async fn datagram(&mut self) -> Vec<u8> {
        timeout(PATIENCE, self.from_server.recv()).await.unwrap().expect("the session is there")
    }

    /// Gives the machine a datagram of the server.
    pub(super) fn take_in(&mut self, datagram: &[u8]) {
        self.machine.receive(datagram, StdInstant::now()).unwrap();
        self.sort();
    }

    /// What has come and nobody has looked at is lost.
    pub(super) fn lose_datagrams(&mut self) {
        while self.from_server.try_recv().is_ok() {}
    }

    pub(super) async fn fate(&mut self, exchange: ExchangeId) -> Fate {
        loop {
            if let Some(index) = self.responses.iter().position(|(answered, _)| *answered == exchange) {
                return Fate::of(&self.responses.remove(index).1);
            }
            self.turn().await;
        }
    }
}

#[tokio::test]
async fn messages_go_both_ways_once_though_every_datagram_comes_twice() {
    let net = Net::new().await;
    let (mut meter, mut other) = (Device::registered(&net, "meter").await, net.ue("other").await);
    meter.stutters = true;
    for number in 1..=5 {
        let id = number.to_string();
        let out = meter.ask(&message("meter", "other", &id).encode());
        assert_eq!(other.receive().await.message_id.as_str(), id);
        while meter.responses.is_empty() {
            meter.turn().await;
        }
        let (answered, response) = meter.responses.pop().unwrap();
        assert_eq!((answered, Fate::of(&response)), (out, Fate::delivered()));
        let back = other.post(&message("other", "meter", &id)).await;
        assert_eq!(meter.receive().await.message_id.as_str(), id);
        assert_eq!(other.fate(back).await, Fate::delivered());
    }
    assert!(meter.requests.is_empty() && other.requests.is_empty());
}

#[tokio::test]
async fn a_message_that_is_larger_than_a_datagram_goes_in_blocks() {
    let net = Net::new().await;
    let (mut meter, mut other) = (Device::registered(&net, "meter").await, net.ue("other").await);
    let large = |from: &str, to: &str| Message { payload: vec![b'x'; 2_048], ..message(from, to, "1") };
    let out = meter.ask(&large("meter", "other").encode());
    while other.requests.is_empty() {
        tokio::select! {
            () = meter.turn() => {}
            () = other.turn() => {}
        }
    }
    assert_eq!(other.receive().await.payload.len(), 2_048);
    while meter.responses.is_empty() {
        meter.turn().await;
    }
    assert_eq!(meter.responses.pop().unwrap().0, out);
    let back = other.post(&large("other", "meter")).await;
    assert_eq!(meter.receive().await.payload.len(), 2_048);
    assert_eq!(other.fate(back).await, Fate::delivered());
}

#[tokio::test]
async fn a_ue_that_acknowledges_nothing_counts_as_away_and_is_served_when_something_comes_from_it() {
    let net = Net::with(Limits { delivery_timeout_seconds: 1, ..Limits::default() }).await;
    let (mut meter, mut other) = (Device::registered(&net, "meter").await, net.ue("other").await);
    // It sleeps: nothing of this is taken in.
    assert_eq!(other.send(&storable("other", "meter", "1")).await, Fate::stored());
    assert_eq!(other.send(&message("other", "meter", "2")).await, Fate::failed("2.04", "TARGET_UNREACHABLE"));
    assert_eq!(other.send(&storable("other", "meter", "3")).await, Fate::stored());
    assert!(!meter.session.is_finished());
    while meter.from_server.try_recv().is_ok() {}
    // The first that it says brings it all.
    let out = meter.ask(&message("meter", "other", "1").encode());
    assert_eq!(other.receive().await.message_id.as_str(), "1");
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
    assert_eq!(meter.receive().await.message_id.as_str(), "3");
    while meter.responses.is_empty() {
        meter.turn().await;
    }
    assert_eq!(meter.responses.pop().unwrap().0, out);
    let back = other.post(&message("other", "meter", "4")).await;
    assert_eq!(meter.receive().await.message_id.as_str(), "4");
    assert_eq!(other.fate(back).await, Fate::delivered());
}

#[tokio::test]
async fn a_newer_session_of_the_ue_ends_one_that_sleeps() {
    let net = Net::with(Limits { delivery_timeout_seconds: 1, ..Limits::default() }).await;
    let (asleep, mut other) = (Device::registered(&net, "meter").await, net.ue("other").await);
    assert_eq!(other.send(&storable("other", "meter", "1")).await, Fate::stored());
    let mut newer = Device::registered(&net, "meter").await;
    assert_eq!(asleep.ended().await, Ended::Replaced);
    assert_eq!(newer.receive().await.message_id.as_str(), "1");
}

#[tokio::test]
async fn nothing_is_asked_at_a_new_address_before_it_is_proven() {
    let net = Net::new().await;
    let (mut meter, mut other) = (Device::registered(&net, "meter").await, net.ue("other").await);
    meter.moves();
    let question = meter.question().await;
    let back = other.post(&message("other", "meter", "1")).await;
    until(|| net.core.open_requests() == 1).await;
    // What it asks from there is answered.
    assert_eq!(meter.send(&message("meter", "nobody", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    assert!(meter.requests.is_empty(), "it is not proven yet");
    // Message IDs can be known, and so can what was asked elsewhere.
    meter.to_server.send(LinkReceived::Datagram([&[0x70, 0], &question[2..4]].concat())).unwrap();
    meter.moves();
    let anew = meter.question().await;
    assert_ne!(anew[4..], question[4..]);
    meter.answer(&question);
    assert_eq!(meter.send(&message("meter", "nobody", "2")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    assert!(meter.requests.is_empty(), "nor is it now");
    meter.answer(&anew);
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
    assert_eq!(other.fate(back).await, Fate::delivered());
}

#[tokio::test]
async fn deliveries_to_an_address_that_stays_unproven_end_in_their_time_and_go_on_after_a_proof() {
    let net = Net::with(Limits { queue_timeout_seconds: 1, ..Limits::default() }).await;
    let (mut meter, mut other) = (Device::registered(&net, "meter").await, net.ue("other").await);
    // Questions at addresses before this one stay without an answer, and stand in the way of nothing.
    for _ in 0..3 {
        meter.moves();
        meter.question().await;
    }
    assert_eq!(other.send(&storable("other", "meter", "1")).await, Fate::stored());
    assert_eq!(other.send(&message("other", "meter", "2")).await, Fate::failed("2.04", "TARGET_UNREACHABLE"));
    meter.moves();
    let question = meter.question().await;
    meter.answer(&question);
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
}

#[tokio::test]
async fn a_ue_whose_address_stays_unproven_counts_as_away_until_it_proves_one() {
    let net = Net::new().await;
    // MAX_TRANSMIT_WAIT is a second then.
    let quick = |transmission: &mut Transmission| transmission.ack_timeout = Duration::from_millis(20);
    let (mut meter, mut other) = (Device::registered_with(&net, "meter", quick).await, net.ue("other").await);
    let party = net.core.registry.find(&address("meter")).unwrap();
    meter.moves();
    meter.question().await;
    until(|| !party.is_carried_by(1)).await;
    assert_eq!(other.send(&storable("other", "meter", "1")).await, Fate::stored());
    assert!(!meter.session.is_finished());
    // What comes from there wakes it, and is answered by a question.
    while meter.from_server.try_recv().is_ok() {}
    meter.ask(&message("meter", "nobody", "1").encode());
    let question = meter.question().await;
    meter.answer(&question);
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
}

#[tokio::test]
async fn a_session_from_which_nothing_comes_ends_after_its_time() {
    let net = Net::with(Limits { datagram_idle_seconds: 1, ..Limits::default() }).await;
    let meter = Device::registered(&net, "meter").await;
    assert_eq!(meter.ended().await, Ended::Silent);
    let party = net.core.registry.find(&address("meter")).unwrap();
    assert!(!party.is_carried_by(1));
}

/// Does something in the moment in which somebody is told that a delivery failed.
struct AtThatMoment(Mutex<Option<Act>>);

type Act = Box<dyn FnOnce(&Arc<Core>) + Send>;

impl std::fmt::Debug for AtThatMoment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AtThatMoment")
    }
}

impl Collector for AtThatMoment {
    fn ended(&self, core: &Arc<Core>, _: usize, answer: Answer) {
        assert!(matches!(answer, Answer::Failed(_)), "{answer:?}");
        let act = self.0.lock().unwrap().take().unwrap();
        act(core);
    }
}

/// Sends the UE what it does not acknowledge, and acts when it has just come to count as away.
fn when_it_falls_asleep(net: &Net, name: &str, act: impl FnOnce(&Arc<Core>) + Send + 'static) {
    let party = net.core.registry.find(&address(name)).unwrap();
    let lost = message("other", name, "lost");
    let moment: Arc<dyn Collector> = Arc::new(AtThatMoment(Mutex::new(Some(Box::new(act)))));
    let delivery = Delivery::message(&lost, lost.encode().into(), Some(Asker::Part(moment, 0)));
    net.core.deliver(&party, delivery);
}

#[tokio::test]
async fn a_message_that_comes_in_the_moment_in_which_a_ue_falls_asleep_is_stored_and_delivered_when_it_wakes() {
    let net = Net::with(Limits { delivery_timeout_seconds: 1, ..Limits::default() }).await;
    let mut meter = Device::registered(&net, "meter").await;
    when_it_falls_asleep(&net, "meter", |core| {
        let party = core.registry.find(&address("meter")).unwrap();
        let late = storable("other", "meter", "late");
        let expires = time::OffsetDateTime::now_utc() + Duration::from_secs(3600);
        let late = Message { expiration_time: Some(expires), ..late };
        core.deliver(&party, Delivery::message(&late, late.encode().into(), None));
    });
    until(|| net.stored_for("meter") == 1).await;
    while meter.from_server.try_recv().is_ok() {}
    let out = meter.ask(&message("meter", "nobody", "1").encode());
    assert_eq!(meter.receive().await.message_id.as_str(), "late");
    while !meter.responses.iter().any(|(answered, _)| *answered == out) {
        meter.turn().await;
    }
    until(|| net.stored_for("meter") == 0).await;
}

#[tokio::test]
async fn a_session_whose_place_is_taken_in_the_moment_in_which_it_falls_asleep_ends() {
    let net = Net::with(Limits { delivery_timeout_seconds: 1, ..Limits::default() }).await;
    let meter = Device::registered(&net, "meter").await;
    let newer = Arc::new(Mailbox::default());
    when_it_falls_asleep(&net, "meter", move |core| {
        core.registry.find(&address("meter")).unwrap().attach(&newer, None).unwrap();
    });
    assert_eq!(meter.ended().await, Ended::Replaced);
}

#[tokio::test]
async fn a_session_whose_registration_goes_in_the_moment_in_which_it_falls_asleep_ends() {
    let net = Net::with(Limits { delivery_timeout_seconds: 1, ..Limits::default() }).await;
    let meter = Device::registered(&net, "meter").await;
    when_it_falls_asleep(&net, "meter", |core| {
        core.dissolve(&core.registry.find(&address("meter")).unwrap(), None);
    });
    assert_eq!(meter.ended().await, Ended::Deregistered);
}
