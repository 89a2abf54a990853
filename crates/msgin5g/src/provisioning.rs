//! `msgin5g subscriber` and `msgin5g association`: provisioning at the lab's UDM and at the Configuration Function.

use std::process::ExitCode;

use akma::UeId;
use lab::{Algorithm, AuthenticationMethod, SecretHex, Subscription, SubscriptionSummary, udm::SubscriberClient};
use message::UeServiceId;
use sbi::{
    CertificateFiles, ClientLimits, SbiClient, SbiClientConfig, SbiError,
    association::{Association, AssociationClient, PageQuery},
};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    cli::{
        AlgorithmArg, AssociationArgs, AssociationCommand, MethodArg, ProvisioningArgs, SubscriberAddArgs,
        SubscriberCommand,
    },
    keys,
    outcome::{Failure, Output, chain},
    profile::Lab,
};

pub(crate) async fn subscriber(command: SubscriberCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        SubscriberCommand::Add(arguments) => add_subscriber(&arguments, output).await?,
        SubscriberCommand::List(target) => {
            let subscribers = subscribers(&target)?.list().await.map_err(|error| refused("UDM", &error))?;
            for subscriber in &subscribers {
                output.print(subscriber, subscriber_line)?;
            }
        }
        SubscriberCommand::Remove { target, supi } => {
            let supi = keys::supi("--supi", &supi)?;
            subscribers(&target)?.remove(&supi).await.map_err(|error| refused("UDM", &error))?;
            output.print(&Removed { removed: supi.as_str() }, |removed| format!("removed {}", removed.removed))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn association(command: AssociationCommand, output: Output) -> Result<ExitCode, Failure> {
    let failed = |error: SbiError| refused("Configuration Function", &error);
    match command {
        AssociationCommand::Add(arguments) => {
            let association = association_of(&arguments)?;
            let client = associations(&arguments.target)?;
            let new = client.associate(&association.ue_id, &association.ue_service_id).await.map_err(failed)?;
            output.print(&Added { association, new }, |added| {
                format!("{}{}", association_line(&added.association), if added.new { "" } else { " (was there)" })
            })?;
        }
        AssociationCommand::List { target, ue_id } => {
            let client = associations(&target)?;
            match ue_id {
                Some(ue_id) => {
                    let ue_id: UeId = keys::parse("--ue-id", &ue_id)?;
                    for ue_service_id in client.of_ue(&ue_id).await.map_err(failed)? {
                        output.print(&Association { ue_id: ue_id.clone(), ue_service_id }, association_line)?;
                    }
                }
                None => list_associations(&client, output).await?,
            }
        }
        AssociationCommand::Remove(arguments) => {
            let association = association_of(&arguments)?;
            let client = associations(&arguments.target)?;
            client.dissociate(&association.ue_id, &association.ue_service_id).await.map_err(failed)?;
            output.print(&Removed { removed: &association }, |removed| {
                format!("removed {}", association_line(removed.removed))
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a command that removes prints.
#[derive(Serialize)]
pub(crate) struct Removed<T> {
    pub(crate) removed: T,
}

#[derive(Serialize)]
struct Added {
    #[serde(flatten)]
    association: Association,
    new: bool,
}

async fn list_associations(client: &AssociationClient, output: Output) -> Result<(), Failure> {
    let mut query = PageQuery::default();
    loop {
        let page = client.page(&query).await.map_err(|error| refused("Configuration Function", &error))?;
        for association in &page.associations {
            output.print(association, association_line)?;
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(()),
        }
    }
}

/// What `subscriber add` prints: the keys only where they were made here, for nobody else knows them.
#[derive(Serialize)]
struct AddedSubscriber {
    #[serde(flatten)]
    summary: SubscriptionSummary,
    new: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<SecretHex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opc: Option<SecretHex>,
}

async fn add_subscriber(arguments: &SubscriberAddArgs, output: Output) -> Result<(), Failure> {
    let supi = keys::supi("--supi", &arguments.supi)?;
    let octets = match arguments.algorithm {
        AlgorithmArg::Milenage => 16,
        AlgorithmArg::Tuak => 32,
    };
    let k = given("--k", arguments.k.as_deref())?;
    let opc = given("--opc", arguments.opc.as_deref())?;
    let op = given("--op", arguments.op.as_deref())?;
    let made_k = if k.is_none() { Some(random(octets)?) } else { None };
    let made_opc = if opc.is_none() && op.is_none() { Some(random(octets)?) } else { None };
    let k = k.or_else(|| made_k.clone()).unwrap_or_else(|| SecretHex::new(Vec::new()));
    let mut subscription = Subscription::new(supi, k, SecretHex::new(Vec::new()));
    subscription.opc = opc.or_else(|| made_opc.clone());
    subscription.op = op;
    subscription.gpsi = arguments.gpsi.as_deref().map(|gpsi| keys::parse("--gpsi", gpsi)).transpose()?;
    subscription.algorithm = match arguments.algorithm {
        AlgorithmArg::Milenage => Algorithm::Milenage,
        AlgorithmArg::Tuak => Algorithm::Tuak,
    };
    subscription.authentication_method = match arguments.method {
        MethodArg::FiveGAka => AuthenticationMethod::FiveGAka,
        MethodArg::EapAkaPrime => AuthenticationMethod::EapAkaPrime,
    };
    subscription.routing_indicator = keys::parse("--routing-indicator", &arguments.routing_indicator)?;
    subscription.akma_allowed = !arguments.no_akma;
    subscription.check().map_err(Failure::usage)?;
    let new = subscribers(&arguments.target)?.put(&subscription).await.map_err(|error| refused("UDM", &error))?;
    let added = AddedSubscriber { summary: subscription.summary(), new, k: made_k, opc: made_opc };
    output.print(&added, |added| {
        let made = |name: &str, key: &Option<SecretHex>| {
            key.as_ref().map(|key| format!("\n{name} {}", *key.to_hex())).unwrap_or_default()
        };
        let verb = if added.new { "added" } else { "replaced" };
        format!("{verb} {}{}{}", subscriber_line(&added.summary), made("K  ", &added.k), made("OPc", &added.opc))
    })
}

fn given(option: &str, text: Option<&str>) -> Result<Option<SecretHex>, Failure> {
    text.map(|text| {
        hex::decode(text).map(SecretHex::new).map_err(|_| Failure::usage(format!("{option}: not hexadecimal digits")))
    })
    .transpose()
}

fn random(octets: usize) -> Result<SecretHex, Failure> {
    let mut key = Zeroizing::new(vec![0; octets]);
    getrandom::fill(&mut key).map_err(|error| Failure::new(format!("the system gives no random numbers: {error}")))?;
    Ok(SecretHex::new(std::mem::take(&mut *key)))
}

fn subscriber_line(subscriber: &SubscriptionSummary) -> String {
    format!(
        "{}  {}  {}  {}  routing indicator {}  {}",
        subscriber.supi.as_str(),
        subscriber.gpsi.as_ref().map_or("-", |gpsi| gpsi.as_str()),
        match subscriber.algorithm {
            Algorithm::Tuak => "tuak",
            _ => "milenage",
        },
        match subscriber.authentication_method {
            AuthenticationMethod::EapAkaPrime => "EAP-AKA'",
            _ => "5G-AKA",
        },
        subscriber.routing_indicator,
        if subscriber.akma_allowed { "AKMA" } else { "no AKMA" },
    )
}

fn association_line(association: &Association) -> String {
    format!("{}  {}", association.ue_id.as_str(), association.ue_service_id)
}

fn association_of(arguments: &AssociationArgs) -> Result<Association, Failure> {
    let ue_id: UeId = keys::parse("--ue-id", &arguments.ue_id)?;
    let ue_service_id: UeServiceId = keys::parse("--ue-service-id", &arguments.ue_service_id)?;
    Ok(Association { ue_id, ue_service_id })
}

fn subscribers(target: &ProvisioningArgs) -> Result<SubscriberClient, Failure> {
    let (http, root) = reach(target, |lab| &lab.json.core.udm)?;
    Ok(SubscriberClient::new(http, &root))
}

fn associations(target: &ProvisioningArgs) -> Result<AssociationClient, Failure> {
    let (http, root) = reach(target, |lab| &lab.json.core.configuration)?;
    Ok(AssociationClient::new(http, root))
}

/// The function's root and a client with the caller's certificate: from the lab, as far as no option says otherwise.
pub(crate) fn reach(target: &ProvisioningArgs, root: impl Fn(&Lab) -> &String) -> Result<(SbiClient, String), Failure> {
    let lab = target.lab.as_deref().map(Lab::open).transpose()?;
    let missing = |option: &str| Failure::usage(format!("{option} is needed where --lab is not given"));
    let files = lab.as_ref().map(Lab::provisioner);
    let file =
        |option: &str, given: &Option<std::path::PathBuf>, of_lab: fn(&CertificateFiles) -> &std::path::PathBuf| {
            given.clone().or_else(|| files.as_ref().map(|files| of_lab(files).clone())).ok_or_else(|| missing(option))
        };
    let tls = CertificateFiles {
        certificate: file("--cert", &target.cert, |files| &files.certificate)?,
        key: file("--key", &target.key, |files| &files.key)?,
        ca: file("--ca", &target.ca, |files| &files.ca)?,
        crl: None,
    };
    let root =
        target.url.clone().or_else(|| lab.as_ref().map(|lab| root(lab).clone())).ok_or_else(|| missing("--url"))?;
    let http = SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() })
        .map_err(|error| Failure::new(chain(&error)).help("the certificate must be one that may provision"))?;
    Ok((http, root))
}

pub(crate) fn refused(function: &str, error: &dyn std::error::Error) -> Failure {
    Failure::new(format!("{function}: {}", chain(error)))
        .help("is it running (`msgin5g lab --dir DIR`), and may this certificate provision?")
}
