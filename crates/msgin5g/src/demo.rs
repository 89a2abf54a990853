//! `msgin5g lab --demo`: a scripted day of what the product can do, told as it happens.
//!
//! The devices use the client library and nothing that other programs do not have; every function is reached over its
//! real interface. Keys are named and never shown.

mod carriers;
mod cast;
mod datagrams;
mod https;
mod impostors;
mod inbox;
mod invoker;
mod many;
mod narrator;
mod outside;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use application::Acceptance;
use client::{AkmaMaterial, Client, Outcome, OutgoingMessage};
use lab::{Algorithm, AuthenticationMethod};
use message::{Address, DecodeLimits, Message, MessageId, Priority, ReportDeliveryStatus};
use time::OffsetDateTime;

use crate::{
    lab::RunningLab,
    outcome::{Failure, Output},
};
use cast::{ApplicationServer, Broken, Device, text, within};
use inbox::Inbox;
use narrator::Narrator;

/// Plays the demo: exit code 0 only if everything held.
pub(crate) async fn play(lab: &mut RunningLab, output: Output) -> Result<ExitCode, Failure> {
    let mut narrator = Narrator::new(output);
    narrator.ready(lab.lab_json());
    narrator.say("MSGin5G: a day in a network on this machine. Keys are named, never shown.");
    let outcome = Box::pin(day(lab, &mut narrator)).await;
    if let Err(reason) = &outcome {
        narrator.broken(reason);
    }
    narrator.summary(outcome.is_ok());
    narrator.finish()?;
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A device that is registered.
struct Registered {
    device: Device,
    keys: AkmaMaterial,
    client: Client,
    inbox: Inbox,
}

/// Numbers of subscribers in `lab.json`: plain ones, one with TUAK, one with EAP-AKA'.
const METER: usize = 1;
const VALVE: usize = 2;
const TUAK_METER: usize = 6;
const EAP_VALVE: usize = 7;

async fn day(lab: &mut RunningLab, narrator: &mut Narrator) -> Result<(), Broken> {
    let devices = authenticate(lab, narrator).await?;
    let mut devices = register(lab, narrator, devices).await?.into_iter();
    let (Some(mut meter), Some(mut valve), Some(mut tuak), Some(mut eap)) =
        (devices.next(), devices.next(), devices.next(), devices.next())
    else {
        return Err("there should be four devices".to_owned());
    };

    narrator.scene("UE to UE, with a delivery status report");
    ue_to_ue(narrator, &mut meter, &mut valve, "open 20 %").await?;
    ue_to_ue(narrator, &mut tuak, &mut eap, "from a TUAK device to an EAP-AKA' device").await?;
    for device in [tuak, eap] {
        within("deregistration", device.client.deregister()).await?.map_err(text)?;
    }
    narrator.held("both recipients had each message once, and each sender its report");

    let mut server = ApplicationServer::start(lab, "as-billing").await?;
    ue_and_application_server(narrator, &mut meter, &mut valve, &mut server).await?;
    let valve = Box::pin(offline(lab, narrator, &mut meter, valve)).await?;
    server_again(narrator, &meter, &mut server).await?;
    let mut valve = Box::pin(carriers::websocket(lab, narrator, &mut meter, valve)).await?;
    Box::pin(outside::through_the_nef(lab, narrator, &mut valve)).await?;
    https::device_with_an_http_stack(lab, narrator, &mut meter).await?;
    many::group_and_topic(lab, narrator, &mut meter, &mut valve).await?;
    Box::pin(many::long_messages(narrator, &mut meter, &mut valve, &mut server)).await?;
    datagrams::over_dtls(lab, narrator, &mut meter).await?;
    impostors::try_all(lab, narrator, &mut meter, &mut valve).await?;

    for device in [meter, valve] {
        within("deregistration", device.client.deregister()).await?.map_err(text)?;
    }
    server.stop().await;
    Ok(())
}

/// Primary authentication of four UEs, each with another method or algorithm.
async fn authenticate(lab: &RunningLab, narrator: &mut Narrator) -> Result<Vec<(Device, AkmaMaterial)>, Broken> {
    narrator.scene("Devices and home network prove themselves to each other (primary authentication)");
    let mut devices = Vec::new();
    for number in [METER, VALVE, TUAK_METER, EAP_VALVE] {
        let device = Device::new(lab, number)?;
        let keys = device.authenticate().await?;
        let algorithm = match device.subscriber.algorithm {
            Algorithm::Tuak => "TUAK",
            _ => "MILENAGE",
        };
        let answer = match device.subscriber.authentication_method {
            Some(AuthenticationMethod::EapAkaPrime) => "RES and AT_MAC of EAP-AKA', checked by AUSF",
            _ => "RES* of 5G AKA, checked by AUSF",
        };
        narrator.proved("home network", &device.name, &format!("MAC-A in AUTN, which takes K to make ({algorithm})"));
        narrator.proved(&device.name, "home network", answer);
        narrator.say(&format!("both derive K_AUSF and K_AKMA; AUSF gives K_AKMA to AAnF as {}", short(&keys.a_kid)));
        let digits = device.subscriber.supi.as_str().trim_start_matches("imsi-");
        if keys.a_kid.as_str().contains(digits) {
            return Err(format!("the A-KID of {} holds its SUPI", device.name));
        }
        devices.push((device, keys));
    }
    narrator.held("no key has travelled to a device, and no A-KID tells the SUPI");
    Ok(devices)
}

/// TLS by K_AF, then REG: the server learns from AAnF who it is, and from the Configuration Function what its name is.
async fn register(
    lab: &RunningLab,
    narrator: &mut Narrator,
    devices: Vec<(Device, AkmaMaterial)>,
) -> Result<Vec<Registered>, Broken> {
    narrator.scene("They register with the MSGin5G Server, which has never seen them");
    let mut registered = Vec::new();
    for (device, keys) in devices {
        let started = Instant::now();
        let (client, incoming) = device.register(lab, &keys).await?;
        let took = started.elapsed();
        let status = client.status();
        let (tls, cipher) = (status.tls_version.unwrap_or_default(), status.cipher.unwrap_or_default());
        let server = cast::fqdn(lab)?;
        let name = &device.name;
        narrator.proved(
            name,
            "MSGin5G Server",
            &format!("K_AF as the key of {tls}, {cipher}; the server asked AAnF by A-KID"),
        );
        narrator.proved("MSGin5G Server", name, &format!("the same K_AF, which only {server} gets from AAnF"));
        let allowed = format!("whoever holds that key may be called {}", device.ue_service_id);
        narrator.proved("Configuration Function", "MSGin5G Server", &allowed);
        narrator.say(&format!("registered {:.1} ms after it began to connect", took.as_secs_f64() * 1_000.0));
        registered.push(Registered { device, keys, client, inbox: Inbox::new(incoming) });
    }
    narrator.held("four devices registered without certificate or password");
    Ok(registered)
}

/// One message with a report.
async fn ue_to_ue(
    narrator: &mut Narrator,
    from: &mut Registered,
    to: &mut Registered,
    payload: &str,
) -> Result<(), Broken> {
    let message = OutgoingMessage::to_ue(&to.device.ue_service_id, payload).with_report();
    let id = message.id().clone();
    let started = Instant::now();
    let (outcome, received) = tokio::join!(within("an answer", from.client.send(message)), to.inbox.message(&id));
    expect_outcome(outcome?, &Outcome::Delivered)?;
    let (received, at) = received?;
    expect_content(&received, &Address::ue(&from.device.ue_service_id), payload)?;
    let names = (from.device.name.as_str(), to.device.name.as_str());
    narrator.delivered(&format!("“{payload}”"), names, "delivered", at.duration_since(started));
    let (report, at) = from.inbox.report(&id).await?;
    if report.delivery_status != ReportDeliveryStatus::Success {
        return Err(format!("the report says {:?}", report.delivery_status));
    }
    let names = (to.device.name.as_str(), from.device.name.as_str());
    narrator.delivered("delivery status report", names, "success", at.duration_since(started));
    Ok(())
}

/// Both directions between a UE and an application server.
async fn ue_and_application_server(
    narrator: &mut Narrator,
    meter: &mut Registered,
    valve: &mut Registered,
    server: &mut ApplicationServer,
) -> Result<(), Broken> {
    narrator.scene("An application server joins: UE to AS, AS to UE (TS 29.538)");
    server.register().await?;
    let name = server.name.clone();
    narrator.proved(&name, "MSGin5G Server", "its certificate, to which the AS Service ID is bound (mutual TLS)");
    meter_reading(narrator, meter, server, "21.5 kWh").await?;

    let payload = "tariff 2";
    let id = random_id()?;
    let mut message = as_message(server, &valve.device, payload, &id);
    message.delivery_status_required = true;
    let started = Instant::now();
    let (answer, received) = tokio::join!(server.send(&message), valve.inbox.message(&id));
    let answer = answer?.map_err(|error| format!("the server refused the AS's message: {error}"))?;
    if answer != Acceptance::Delivered {
        return Err(format!("the AS was answered {answer:?}"));
    }
    let (received, at) = received?;
    expect_content(&received, &Address::application_server(&server.id), payload)?;
    let latency = at.duration_since(started);
    narrator.delivered(&format!("“{payload}”"), (&name, &valve.device.name), "delivered", latency);
    let report = server.report().await?;
    if report.message_id != id || report.delivery_status != ReportDeliveryStatus::Success {
        return Err(format!("the AS was reported {:?}", report.delivery_status));
    }
    narrator.delivered("delivery status report", (&valve.device.name, &name), "success", started.elapsed());
    narrator.held("the AS spoke plain TS 29.538, and no code of the MSGin5G Server");
    Ok(())
}

/// A message from a UE to the AS.
async fn meter_reading(
    narrator: &mut Narrator,
    meter: &Registered,
    server: &mut ApplicationServer,
    payload: &str,
) -> Result<(), Broken> {
    let message = OutgoingMessage::to_application_server(&server.id, payload);
    let id = message.id().clone();
    let started = Instant::now();
    let arrival = async {
        let received = server.message().await?;
        Ok::<_, Broken>((received, Instant::now()))
    };
    let (outcome, received) = tokio::join!(within("an answer", meter.client.send(message)), arrival);
    expect_outcome(outcome?, &Outcome::Delivered)?;
    let (received, at) = received?;
    if received.message_id != id {
        return Err("the AS got another message".to_owned());
    }
    expect_content(&received, &Address::ue(&meter.device.ue_service_id), payload)?;
    let names = (meter.device.name.as_str(), server.name.as_str());
    narrator.delivered(&format!("“{payload}”"), names, "delivered", at.duration_since(started));
    Ok(())
}

/// The valve is away, the server restarts, the valve returns.
async fn offline(
    lab: &mut RunningLab,
    narrator: &mut Narrator,
    meter: &mut Registered,
    valve: Registered,
) -> Result<Registered, Broken> {
    narrator.scene("The recipient is away, and the server restarts: store and forward");
    let Registered { device, keys, client, .. } = valve;
    within("closing a client", client.close()).await?;
    narrator.say(&format!("{} goes to sleep; it stays registered", device.name));
    let mut stored = Vec::new();
    for (payload, priority) in [("close", Priority::Middle), ("flush now", Priority::High)] {
        let expiry = OffsetDateTime::now_utc() + Duration::from_secs(3_600);
        let message =
            OutgoingMessage::to_ue(&device.ue_service_id, payload).priority(priority).store_and_forward(Some(expiry));
        let id = message.id().clone();
        let started = Instant::now();
        let outcome = within("an answer", meter.client.send(message)).await?;
        expect_outcome(outcome, &Outcome::Stored)?;
        let what = format!("“{payload}”, priority {priority:?}");
        let names = (meter.device.name.as_str(), "the server's disk");
        narrator.delivered(&what, names, "DELY_STORED", started.elapsed());
        stored.push((id, payload));
    }
    let registrations = meter.client.status().registrations;
    lab.stop_server().await;
    narrator.say("the MSGin5G Server is stopped ...");
    lab.start_server().await.map_err(|_| "the MSGin5G Server did not start again".to_owned())?;
    narrator.say("... and started again; nobody told the devices");
    let mut status = meter.client.watch();
    let back = status
        .wait_for(|status| status.registrations > registrations && status.state == client::ClientState::Registered);
    within("the meter's return", back).await?.map_err(text)?;
    narrator.held(&format!("{} found its way back by itself", meter.device.name));

    let returned = Instant::now();
    let (client, incoming) = device.register(lab, &keys).await?;
    narrator.say(&format!("{} wakes up and registers", device.name));
    let mut valve = Registered { device, keys, client, inbox: Inbox::new(incoming) };
    stored.reverse();
    for (id, payload) in &stored {
        let (received, at) = valve.inbox.message(id).await?;
        expect_content(&received, &Address::ue(&meter.device.ue_service_id), payload)?;
        let names = ("the server's disk", valve.device.name.as_str());
        narrator.delivered(&format!("“{payload}”"), names, "delivered on return", at.duration_since(returned));
    }
    ue_to_ue(narrator, meter, &mut valve, "good morning").await?;
    for (id, payload) in &stored {
        valve.inbox.expect_once(id).map_err(|reason| format!("“{payload}” {reason}"))?;
    }
    narrator.held("what was stored arrived exactly once, the high priority first, across the restart");
    Ok(valve)
}

/// The AS did nothing while the server restarted.
async fn server_again(
    narrator: &mut Narrator,
    meter: &Registered,
    server: &mut ApplicationServer,
) -> Result<(), Broken> {
    meter_reading(narrator, meter, server, "21.6 kWh").await?;
    narrator.held("the AS's registration survived the restart, too");
    Ok(())
}

fn as_message(server: &ApplicationServer, to: &Device, payload: &str, id: &MessageId) -> Message {
    Message {
        originator: Address::application_server(&server.id),
        destination: Address::ue(&to.ue_service_id),
        recipient: None,
        message_id: id.clone(),
        application_id: None,
        delivery_status_required: false,
        store_and_forward: false,
        expiration_time: None,
        priority: Priority::default(),
        payload: payload.as_bytes().to_vec(),
        segment: None,
        latency: None,
    }
}

/// An A-KID without the middle of its A-TID; the log has it whole.
fn short(a_kid: &akma::AKid) -> String {
    let text = a_kid.as_str();
    match (text.get(..10), text.find('@').and_then(|at| text.get(at.saturating_sub(4)..))) {
        (Some(first), Some(last)) => format!("A-KID {first}…{last}"),
        _ => format!("A-KID {text}"),
    }
}

fn random_id() -> Result<MessageId, Broken> {
    uuid::Uuid::new_v4().to_string().parse().map_err(text)
}

fn expect_outcome(outcome: Result<Outcome, client::ClientError>, expected: &Outcome) -> Result<(), Broken> {
    match outcome {
        Ok(outcome) if outcome == *expected => Ok(()),
        Ok(outcome) => Err(format!("the server answered {outcome:?} instead of {expected:?}")),
        Err(error) => Err(format!("the message was not answered: {error}")),
    }
}

fn expect_content(received: &Message, originator: &Address, payload: &str) -> Result<(), Broken> {
    if received.originator != *originator {
        return Err("a message arrived in another name".to_owned());
    }
    if received.payload != payload.as_bytes() || received.payload.len() > DecodeLimits::default().payload_octets_max {
        return Err("a message arrived with another content".to_owned());
    }
    Ok(())
}
