//! An application server outside as an API invoker: through CAPIF (TS 33.122), with the library that any application server can
//! use.

use std::path::Path;
use std::time::{Duration, Instant};

use axum::http::Method;
use message::{Address, ts29538};
use sbi::SbiError;
use sbi::capif::connection::Content;
use sbi::capif::invoker::{Agreement, Invoker, InvokerConfig};
use sbi::capif::publish::SecurityMethod;

use super::{ApplicationServer, Broken, Narrator, Registered, as_message, expect_content, random_id, text, within};
use crate::lab::RunningLab;

const DELIVERY: &str = "msgs-msgdelivery";
const SEND: &str = "/msgs-msgdelivery/v1/deliver-as-message";
const REGISTRATIONS: &str = "/msgs-asregistration/v1/registrations";

/// From a credential to a delivered message, and an API that was not agreed upon. `server` is registered already.
pub(super) async fn through_capif(
    lab: &RunningLab,
    narrator: &mut Narrator,
    server: &ApplicationServer,
    valve: &mut Registered,
) -> Result<(), Broken> {
    narrator.scene("The same application server as an API invoker, through CAPIF (TS 33.122)");
    let name = server.name.as_str();
    let invoker = within("onboarding", onboarded(lab, server)).await??;
    narrator.proved(
        name,
        "CAPIF core function",
        "a credential that is good once; since then a certificate for its own key",
    );
    let agreement = within("an agreement on a security method", agreed(&invoker)).await?.map_err(text)?;
    let proof = format!("that certificate and a token of the CAPIF core function, for {DELIVERY} alone");
    narrator.proved(name, "NEF", &proof);

    let payload = "calm: open";
    let id = random_id()?;
    let message = ts29538::AsMessageDelivery::from(&as_message(server, &valve.device, payload, &id));
    let content = Content::json(&message).map_err(text)?;
    let started = Instant::now();
    let (answer, received) = tokio::join!(
        within("an answer to the invoker", invoker.call(&agreement, Method::POST, SEND, content)),
        valve.inbox.message(&id)
    );
    let answer = answer?.and_then(|answer| answer.into_json::<ts29538::MessageDeliveryAck>());
    let answer = answer.map_err(|error| format!("the invoker's command was refused: {error}"))?;
    if answer.status.is_some() {
        return Err(format!("the invoker was answered {:?}", answer.status));
    }
    let (received, at) = received?;
    expect_content(&received, &Address::application_server(&server.id), payload)?;
    let names = (name, valve.device.name.as_str());
    narrator.delivered(&format!("“{payload}”"), names, "delivered", at.duration_since(started));

    let content = Content::Json(b"{}".to_vec());
    let refusal = within("a refusal", invoker.call(&agreement, Method::POST, REGISTRATIONS, content)).await?;
    let problem = refusal.map_err(text)?.problem();
    if problem.status != Some(403) || !problem.has_cause("API_NOT_ALLOWED") {
        return Err(format!("an API that was not agreed upon was answered with {problem}"));
    }
    let reason = "it agreed on the delivery of messages and on nothing else";
    narrator.refused(name, "calls the API for registrations as an invoker", "403 API_NOT_ALLOWED", reason);
    narrator.held("the AS came from a credential to a delivered message, and used what it had agreed upon and no more");
    Ok(())
}

/// The invoker: of an earlier day, or onboarded now.
async fn onboarded(lab: &RunningLab, server: &ApplicationServer) -> Result<Invoker, Broken> {
    let description = lab.description();
    let directory = lab.directory().state("demo-invoker");
    std::fs::create_dir_all(&directory).map_err(text)?;
    let own = description.external_application_servers.iter().find(|own| own.as_service_id == server.id.as_str());
    let config = InvokerConfig {
        core_function: description.core.capif.clone().ok_or("there is no CAPIF core function")?,
        ca: lab.directory().outside_certificate(&own.ok_or("no such AS outside")?.af_id).ca,
        directory: directory.clone(),
        notification_destination: "https://localhost:9/capif".to_owned(),
        tls12: false,
    };
    if Path::new(&directory).join("invoker.id").exists() {
        return Invoker::open(config).map_err(text);
    }
    let mut credentials = description.capif_onboarding.iter().filter(|one| one.as_service_id == server.id.as_str());
    let credential = credentials.next().ok_or("no onboarding credential")?.token.to_hex();
    Invoker::onboard(config, &credential).await.map_err(text)
}

/// What is agreed upon for the delivery of messages. The NEF publishes its APIs behind its start.
async fn agreed(invoker: &Invoker) -> Result<Agreement, SbiError> {
    loop {
        match invoker.negotiate(DELIVERY, vec![SecurityMethod::Oauth]).await {
            Err(SbiError::Problem(problem)) if problem.has_cause("API_NOT_PUBLISHED") => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            outcome => return outcome,
        }
    }
}
