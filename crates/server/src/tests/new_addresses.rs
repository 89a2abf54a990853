//! Who forges the source of a datagram, with `coaps.prove_new_addresses` and without: the listener as the server starts it, real
//! DTLS, and a victim at another address.

use std::net::SocketAddr;

use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::sealed::{Device, K_AF};
use super::*;
use crate::config::{CoapsSection, Config};
use crate::datagram_listener;
use crate::server::DisablingHeard;

/// No question, and no answer to what the device sends here, is as large.
const DELIVERY_OCTETS: usize = 600;

/// Forwards what a device says, from its own address or, forged, from the victim's, and brings it what is said to its own.
struct Path {
    address: SocketAddr,
    forged: watch::Sender<bool>,
    /// Octets from the victim's address, and of each datagram to it.
    victim: watch::Receiver<(usize, Vec<usize>)>,
}

impl Path {
    async fn to(server: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        let own = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let victim = UdpSocket::bind("127.0.0.66:0").await.unwrap();
        let (forged, forging) = watch::channel(false);
        let (seen, victims) = watch::channel((0, Vec::new()));
        tokio::spawn(async move {
            let mut device = None;
            let (mut there, mut here, mut elsewhere) = ([0; 4_096], [0; 4_096], [0; 4_096]);
            loop {
                tokio::select! {
                    Ok((octets, source)) = front.recv_from(&mut there) => {
                        device = Some(source);
                        let from = if *forging.borrow() {
                            seen.send_modify(|(sent, _)| *sent += octets);
                            &victim
                        } else {
                            &own
                        };
                        from.send_to(&there[..octets], server).await.unwrap();
                    }
                    Ok(octets) = own.recv(&mut here) => {
                        if let Some(device) = device {
                            front.send_to(&here[..octets], device).await.unwrap();
                        }
                    }
                    Ok(octets) = victim.recv(&mut elsewhere) => seen.send_modify(|(_, heard)| heard.push(octets)),
                }
            }
        });
        Self { address, forged, victim: victims }
    }

    /// Datagrams that have come to the victim.
    fn heard(&self) -> usize {
        self.victim.borrow().1.len()
    }
}

/// A server whose listener is started by its configuration, a registered device behind a path, and another UE.
async fn with_a_device(prove_new_addresses: bool) -> (Net, Path, Device, Ue) {
    let proven = ProvenKey {
        k_af: KAf::from_bytes(K_AF),
        expires_at: None,
        ue_id: Some(supi_of("meter").parse().unwrap()),
        gpsi: None,
    };
    let keys = Arc::new(Keys { answer: Mutex::new(Some(Some(proven))), ..Keys::default() });
    let net = Net::of(Setup { keys: Some(keys), ..Setup::default() }).await;
    net.associate(&supi_of("meter"), "meter");
    let config: Config = toml::from_str(&format!(
        r#"
        certificates = {{ certificate = "s.pem", key = "s.key", ca = "ca.pem" }}
        akma = {{ aanf = "https://aanf.example" }}
        configuration_function = {{ url = "https://configuration.example" }}
        api = {{}}
        store = {{ path = "state" }}
        server = {{ fqdn = "msgin5g.lab.example" }}
        authorization = {{ mode = "tls" }}
        coaps = {{ listen = "127.0.0.1:0", prove_new_addresses = {prove_new_addresses} }}
        "#
    ))
    .unwrap();
    let section: &CoapsSection = config.coaps.as_ref().unwrap();
    let keys = net.core.keys.clone().unwrap();
    let at = datagram_listener::start(&net.core, section, &config, keys, &DisablingHeard::NOBODY_TELLS).await.unwrap();
    let path = Path::to(at).await;
    let mut meter = Device::connect(path.address).await;
    let registration = Registration { ue_service_id: "meter".parse().unwrap(), client_profile: None };
    assert_eq!(meter.exchange(&registration.encode()).await.code, Code::CREATED);
    let other = net.ue("other").await;
    (net, path, meter, other)
}

/// Has the device say something that seems to come from the victim, until the server has answered there.
async fn forge(path: &Path, meter: &mut Device) {
    let heard = path.heard();
    path.forged.send_replace(true);
    meter.ask(&message("meter", "nobody", "1").encode());
    timeout(PATIENCE, async {
        while path.heard() == heard {
            let _ = timeout(Duration::from_millis(20), meter.turn()).await;
        }
    })
    .await
    .unwrap();
    path.forged.send_replace(false);
}

fn large() -> Message {
    Message { payload: vec![b'x'; DELIVERY_OCTETS], ..message("other", "meter", "1") }
}

/// The device is at its own address again, and gets the message.
async fn is_delivered(meter: &mut Device) {
    meter.ask(&message("meter", "nobody", "back").encode());
    timeout(PATIENCE, async {
        while !meter.requests.iter().any(|request| request.payload.len() > DELIVERY_OCTETS) {
            meter.turn().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn whose_address_is_forged_gets_questions_and_no_delivery_where_new_addresses_are_to_be_proven() {
    let (net, path, mut meter, mut other) = with_a_device(true).await;
    forge(&path, &mut meter).await;
    let sent = other.post(&large()).await;
    until(|| net.core.open_requests() == 1).await;
    // What comes of this was done after the message was there.
    forge(&path, &mut meter).await;
    let (said, heard) = path.victim.borrow().clone();
    assert!(heard.iter().all(|octets| *octets < DELIVERY_OCTETS), "{heard:?}");
    // The first question is free, and records have their overhead.
    assert!(heard.iter().sum::<usize>() <= 3 * said + DELIVERY_OCTETS, "{heard:?} for {said}");
    is_delivered(&mut meter).await;
    assert_eq!(other.fate(sent).await, Fate::delivered());
    assert!(path.victim.borrow().1.iter().all(|octets| *octets < DELIVERY_OCTETS), "nor later");
}

#[tokio::test]
async fn whose_address_is_forged_gets_deliveries_where_new_addresses_need_no_proof() {
    let (_net, path, mut meter, mut other) = with_a_device(false).await;
    forge(&path, &mut meter).await;
    let sent = other.post(&large()).await;
    let mut victim = path.victim.clone();
    let delivered = victim.wait_for(|(_, heard)| heard.iter().any(|octets| *octets > DELIVERY_OCTETS));
    timeout(PATIENCE, delivered).await.unwrap().unwrap();
    is_delivered(&mut meter).await;
    assert_eq!(other.fate(sent).await, Fate::delivered());
}
