//! Those who try what they may not, each refused with the alert or code that the standards and our reference state.

use akma::{AKid, ATid, KAf, KAkma, RoutingIndicator};
use client::{AkmaMaterial, ClientError, Transport};
use coap::Code;
use message::{FailureCause, Message, Registration, UeMessage};
use transport::ClientHandshakeError;

use super::cast::{ApplicationServer, Broken, Device, RawConnection, fqdn, post_forged, text};
use super::narrator::Narrator;
use super::{Registered, random_id, ue_to_ue};
use crate::lab::RunningLab;

/// Numbers of subscribers in `lab.json`: a plain one, and one without AKMA.
const TRACKER: usize = 4;
const WITHOUT_AKMA: usize = 8;

/// Every impostor in turn; then a look at what they achieved.
pub(super) async fn try_all(
    lab: &RunningLab,
    narrator: &mut Narrator,
    meter: &mut Registered,
    valve: &mut Registered,
) -> Result<(), Broken> {
    narrator.scene("Impostors");
    let tracker = Device::new(lab, TRACKER)?;
    let old = tracker.authenticate().await?;
    let fresh = tracker.authenticate().await?;
    wrong_key(lab, narrator, meter).await?;
    unknown_a_kid(lab, narrator).await?;
    older_a_kid(lab, narrator, &old).await?;
    without_akma(lab, narrator).await?;
    somebody_elses_name(lab, narrator, &tracker, &fresh, meter).await?;
    let forged = forged_originator(lab, narrator, &tracker, &fresh, meter, valve).await?;
    over_other_transports(lab, narrator, &tracker, &fresh, meter).await?;
    another_application_server(lab, narrator, valve).await?;

    ue_to_ue(narrator, meter, valve, "still there?").await?;
    if forged.iter().any(|message| valve.inbox.count(&message.message_id) > 0) {
        return Err("a forged message arrived".to_owned());
    }
    narrator.held("no impostor reached anybody, and the devices noticed nothing");
    Ok(())
}

async fn wrong_key(lab: &RunningLab, narrator: &mut Narrator, meter: &Registered) -> Result<(), Broken> {
    let key = random()?;
    let outcome = RawConnection::open(lab, &meter.keys.a_kid, |_| KAf::from_bytes(key)).await?;
    let alert = refused(outcome, |error| matches!(error, ClientHandshakeError::WrongKey))?;
    let attempt = format!("shows the A-KID of {}, with a key of its own", meter.device.name);
    narrator.refused("somebody", &attempt, alert, "the PSK binder takes the K_AF that AAnF gave the server");
    Ok(())
}

async fn unknown_a_kid(lab: &RunningLab, narrator: &mut Narrator) -> Result<(), Broken> {
    let a_tid = ATid::from_bytes(random()?);
    let a_kid = AKid::format(&RoutingIndicator::default(), &a_tid, lab.directory().home_network());
    let key = random()?;
    let outcome = RawConnection::open(lab, &a_kid, |_| KAf::from_bytes(key)).await?;
    let alert = refused(outcome, |error| matches!(error, ClientHandshakeError::UnknownIdentity))?;
    narrator.refused("somebody", "shows an A-KID it made up", alert, "AAnF has no key of that name");
    Ok(())
}

async fn older_a_kid(lab: &RunningLab, narrator: &mut Narrator, old: &AkmaMaterial) -> Result<(), Broken> {
    let alert = handshake_with(lab, old).await?;
    let because = "the device has authenticated again since; AAnF keeps the latest key only";
    narrator.refused("somebody", "shows tracker-4's older A-KID, with the right key of that time", alert, because);
    Ok(())
}

async fn without_akma(lab: &RunningLab, narrator: &mut Narrator) -> Result<(), Broken> {
    let device = Device::new(lab, WITHOUT_AKMA)?;
    let keys = device.authenticate().await?;
    let alert = handshake_with(lab, &keys).await?;
    let because = "its subscription does not allow AKMA: AUSF authenticated it and gave AAnF no key";
    narrator.refused(&device.name, "authenticates, derives its keys and connects", alert, because);
    Ok(())
}

async fn somebody_elses_name(
    lab: &RunningLab,
    narrator: &mut Narrator,
    tracker: &Device,
    keys: &AkmaMaterial,
    meter: &Registered,
) -> Result<(), Broken> {
    let name = &meter.device.ue_service_id;
    let (code, cause) = match tracker.connect_as(lab, keys, name).await? {
        Err(ClientError::RegistrationRefused { code, cause, .. }) => (code, cause),
        Err(error) => return Err(format!("expected a refused registration, got: {error}")),
        Ok(_) => return Err(format!("{} registered as {name}", tracker.name)),
    };
    expect(&code, &cause, FailureCause::NotAssociated)?;
    let because = "the Configuration Function associates that name with another UE ID";
    narrator.refused(
        &tracker.name,
        &format!("has its own right key and registers as {name}"),
        &format!("{code} {cause}"),
        because,
    );
    Ok(())
}

/// The same two over each other transport: another's A-KID with a key of one's own, and one's own key with another's name.
/// Over HTTPS the first has been tried before.
async fn over_other_transports(
    lab: &RunningLab,
    narrator: &mut Narrator,
    tracker: &Device,
    keys: &AkmaMaterial,
    meter: &Registered,
) -> Result<(), Broken> {
    let (victim, name) = (&meter.device.name, &meter.device.ue_service_id);
    let stolen = AkmaMaterial { k_akma: KAkma::from_bytes(random()?), ..meter.keys.clone() };
    for (transport, over) in [
        (Transport::Udp, "DTLS"),
        (Transport::WebSocket, "WebSocket"),
        (Transport::OscoreUdp, "OSCORE over UDP"),
        (Transport::OscoreTcp, "OSCORE over TCP"),
    ] {
        match tracker.connect_over(lab, &stolen, name, transport).await? {
            // There are no newer keys to try than those that were refused.
            Err(ClientError::KeysRefused(_) | ClientError::Keys(_)) => {}
            Err(error) => return Err(format!("{over}: expected refused keys, got: {error}")),
            Ok(_) => return Err(format!("{over}: an impostor was let in")),
        }
        let (code, cause) = match tracker.connect_over(lab, keys, name, transport).await? {
            Err(ClientError::RegistrationRefused { code, cause, .. }) => (code, cause),
            Err(error) => return Err(format!("{over}: expected a refused registration, got: {error}")),
            Ok(_) => return Err(format!("{over}: {} registered as {name}", tracker.name)),
        };
        expect(&code, &cause, FailureCause::NotAssociated)?;
        let attempt =
            format!("over {over}: shows the A-KID of {victim} with a key of its own, then its own and that name");
        let answer = format!("the key, then {code} {cause}");
        narrator.refused(
            &tracker.name,
            &attempt,
            &answer,
            "the proof is K_AF on every way in, and the name goes with it",
        );
    }
    Ok(())
}

/// A message before REG, and one in another's name after it. Gives the messages that must not arrive.
async fn forged_originator(
    lab: &RunningLab,
    narrator: &mut Narrator,
    tracker: &Device,
    keys: &AkmaMaterial,
    meter: &Registered,
    valve: &Registered,
) -> Result<[Message; 2], Broken> {
    let server = fqdn(lab)?;
    let k_af = |protocol| akma::k_af(&keys.k_akma, &akma::AfId::new(server.clone(), protocol));
    let opened = RawConnection::open(lab, &keys.a_kid, k_af).await?;
    let mut connection = opened.map_err(|error| format!("the tracker's own key is refused: {error}"))?;

    let early = message(&tracker.ue_service_id, &valve.device.ue_service_id)?;
    let (code, cause) = connection.request(&UeMessage::Message(Box::new(early.clone()))).await?;
    expect(&code.to_string(), &cause, FailureCause::NotRegistered)?;
    let because = "a connection has no name before its registration was accepted";
    narrator.refused(&tracker.name, "sends before it registers", &format!("{code} {cause}"), because);

    let registration = Registration { ue_service_id: tracker.ue_service_id.clone(), client_profile: None };
    let (code, cause) = connection.request(&UeMessage::Registration(registration)).await?;
    if code != Code::CREATED {
        return Err(format!("{} may not register under its own name: {code} {cause}", tracker.name));
    }
    let forged = message(&meter.device.ue_service_id, &valve.device.ue_service_id)?;
    let (code, cause) = connection.request(&UeMessage::Message(Box::new(forged.clone()))).await?;
    expect(&code.to_string(), &cause, FailureCause::OriginatorNotAllowed)?;
    let attempt = format!("registers as itself and sends in the name of {}", meter.device.name);
    let because = "a connection speaks for the UE Service ID registered on it";
    narrator.refused(&tracker.name, &attempt, &format!("{code} {cause}"), because);
    Ok([early, forged])
}

async fn another_application_server(
    lab: &RunningLab,
    narrator: &mut Narrator,
    valve: &Registered,
) -> Result<(), Broken> {
    let fleet = ApplicationServer::start(lab, "as-fleet").await?;
    let billing = ApplicationServer::start(lab, "as-billing").await?;
    let forged = super::as_message(&billing, &valve.device, "you owe me", &random_id()?);
    let problem = match post_forged(lab, "as-fleet", &forged).await? {
        Err(sbi::SbiError::Problem(problem)) => problem,
        Err(error) => return Err(format!("expected a refusal of the AS, got: {error}")),
        Ok(_) => return Err("an AS spoke for another one".to_owned()),
    };
    let (status, cause) = (problem.status_code().as_u16(), problem.cause.as_deref().unwrap_or_default());
    if status != 403 || cause != FailureCause::OriginatorNotAllowed.as_str() {
        return Err(format!("the AS was refused with {status} {cause}"));
    }
    let because = "the AS Service ID is bound to another certificate";
    narrator.refused(
        &fleet.name,
        &format!("sends in the name of {}", billing.name),
        &format!("{status} {cause}"),
        because,
    );
    fleet.stop().await;
    billing.stop().await;
    Ok(())
}

/// A handshake with keys that were right once, or would be: the alert.
async fn handshake_with(lab: &RunningLab, keys: &AkmaMaterial) -> Result<&'static str, Broken> {
    let server = fqdn(lab)?;
    let k_af = |protocol| akma::k_af(&keys.k_akma, &akma::AfId::new(server.clone(), protocol));
    let outcome = RawConnection::open(lab, &keys.a_kid, k_af).await?;
    refused(outcome, |error| matches!(error, ClientHandshakeError::UnknownIdentity))
}

/// The alert behind a refused handshake (RFC 8446 clause 6.2).
fn refused(
    outcome: Result<RawConnection, ClientHandshakeError>,
    expected: impl FnOnce(&ClientHandshakeError) -> bool,
) -> Result<&'static str, Broken> {
    match outcome {
        Ok(_) => Err("the server let an impostor in".to_owned()),
        Err(error) if expected(&error) => Ok(match error {
            ClientHandshakeError::WrongKey => "TLS alert decrypt_error",
            _ => "TLS alert handshake_failure",
        }),
        Err(error) => Err(format!("refused, but otherwise than stated: {error}")),
    }
}

fn expect(code: &str, cause: &str, expected: FailureCause) -> Result<(), Broken> {
    let octet = expected.coap_code();
    let expected_code = format!("{}.{:02}", octet >> 5, octet & 0x1F);
    if code == expected_code && cause == expected.as_str() {
        Ok(())
    } else {
        Err(format!("refused with {code} {cause} instead of {expected_code} {}", expected.as_str()))
    }
}

fn message(from: &message::UeServiceId, to: &message::UeServiceId) -> Result<Message, Broken> {
    Ok(Message {
        originator: message::Address::ue(from),
        destination: message::Address::ue(to),
        recipient: None,
        message_id: random_id()?,
        application_id: None,
        delivery_status_required: false,
        store_and_forward: true,
        expiration_time: None,
        priority: message::Priority::default(),
        payload: b"believe me".to_vec(),
        segment: None,
        latency: None,
    })
}

fn random() -> Result<[u8; 32], Broken> {
    let mut octets = [0; 32];
    getrandom::fill(&mut octets).map_err(text)?;
    Ok(octets)
}
