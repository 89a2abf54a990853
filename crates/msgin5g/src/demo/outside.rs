//! From outside the operator's domain: an application server that reaches the network through its NEF.

use std::time::Instant;

use akma::{AfId, UaProtocolId};
use application::Acceptance;
use client::{Outcome, OutgoingMessage};
use message::Address;
use sbi::naanf::AkmaAfKeyRequest;

use super::cast::ask_for_key;
use super::{
    ApplicationServer, Broken, Narrator, Registered, as_message, expect_content, expect_outcome, invoker, random_id,
    text, within,
};
use crate::lab::RunningLab;

/// Places in `lab.json`: an application server, and an MSGin5G Server outside, which has keys of its own.
const WEATHER: usize = 0;
const RELAY: usize = 1;

/// A command from outside, an answer, and an attempt at another's key.
pub(super) async fn through_the_nef(
    lab: &RunningLab,
    narrator: &mut Narrator,
    valve: &mut Registered,
) -> Result<(), Broken> {
    narrator.scene("An application server outside the operator's domain, through the NEF (TS 33.501 clause 12)");
    let mut weather = ApplicationServer::start_outside(lab, WEATHER).await?;
    weather.register().await?;
    let name = weather.name.clone();
    narrator.proved(&name, "NEF", "a certificate that is no network function's, and a token bound to it (RFC 8705)");
    narrator.proved("NEF", "MSGin5G Server", &format!("its own certificate, to which {} is bound inside", weather.id));

    let payload = "storm: close";
    let id = random_id()?;
    let message = as_message(&weather, &valve.device, payload, &id);
    let started = Instant::now();
    let (answer, received) = tokio::join!(weather.send(&message), valve.inbox.message(&id));
    let answer = answer?.map_err(|error| format!("the NEF refused the command: {error}"))?;
    if answer != Acceptance::Delivered {
        return Err(format!("the AS outside was answered {answer:?}"));
    }
    let (received, at) = received?;
    expect_content(&received, &Address::application_server(&weather.id), payload)?;
    let names = (name.as_str(), valve.device.name.as_str());
    narrator.delivered(&format!("“{payload}”"), names, "delivered", at.duration_since(started));

    let payload = "closed";
    let started = Instant::now();
    let outgoing = OutgoingMessage::to_application_server(&weather.id, payload);
    let (outcome, received) = tokio::join!(within("an answer", valve.client.send(outgoing)), weather.message());
    expect_outcome(outcome?, &Outcome::Delivered)?;
    let received = received?;
    expect_content(&received, &Address::ue(&valve.device.ue_service_id), payload)?;
    let names = (valve.device.name.as_str(), name.as_str());
    narrator.delivered(&format!("“{payload}”"), names, "delivered", started.elapsed());

    anothers_key(lab, narrator, &weather, valve).await?;
    narrator.held("the AS outside saw the NEF and a device's name, and nothing else of the network");
    invoker::through_capif(lab, narrator, &weather, valve).await?;
    weather.stop().await;
    Ok(())
}

/// The AS shows a device's A-KID, in the name of another application function.
async fn anothers_key(
    lab: &RunningLab,
    narrator: &mut Narrator,
    weather: &ApplicationServer,
    valve: &Registered,
) -> Result<(), Broken> {
    let relay = lab.description().external_application_servers.get(RELAY).ok_or("no such AS outside")?;
    let af_id = AfId::new(relay.fqdn.parse().map_err(text)?, UaProtocolId::TLS_1_3);
    let request = AkmaAfKeyRequest::new(af_id, valve.keys.a_kid.clone());
    let refusal = match ask_for_key(lab, WEATHER, &request).await? {
        Ok(_) => return Err("an AF got another's key".to_owned()),
        Err(error) => error,
    };
    let problem = refusal.problem().ok_or_else(|| format!("no refusal, but {refusal}"))?;
    if problem.status != Some(403) || !problem.has_cause("AF_ID_NOT_ALLOWED") {
        return Err(format!("another's key was refused with {problem}"));
    }
    let attempt = format!("asks for the K_AF that {} has for {}", relay.fqdn, valve.device.name);
    narrator.refused(&weather.name, &attempt, "403 AF_ID_NOT_ALLOWED", "its entry at the NEF names its own FQDN only");
    Ok(())
}
