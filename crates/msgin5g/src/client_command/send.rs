//! `msgin5g client send`: one message, its answer, and its report.

use std::{io::Read, path::Path, process::ExitCode, time::Instant};

use client::{Incoming, IncomingStream, Outcome, OutgoingMessage};
use message::{Address, AddressType, DeliveryStatusReport, MessageId, Priority, ReportDeliveryStatus};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{Connected, client_failure, connect, interrupted};
use crate::{
    cli::{PriorityArg, SendArgs},
    keys::parse,
    outcome::{Failure, Output},
};

/// What is printed, when the answer came and again when the report came.
#[derive(Serialize)]
struct Sent<'a> {
    message_id: &'a str,
    /// `delivered`, `stored`, `failed`, or a later release's status.
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_cause: Option<&'a str>,
    /// From sending to the answer.
    milliseconds: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Report>,
    /// In place of `report` where several were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reports: Vec<Report>,
}

#[derive(Serialize)]
struct Report {
    /// Who reports.
    from: String,
    /// `success`, `failed`, or a later release's status.
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_cause: Option<String>,
    /// From sending to the report.
    milliseconds: u128,
}

pub(super) async fn run(arguments: SendArgs, output: Output) -> Result<ExitCode, Failure> {
    let message = message(&arguments)?;
    let message_id = message.id().clone();
    let Connected { profile, client, mut incoming } = connect(&arguments.profile, output).await?;
    output.progress(format_args!("sending {message_id} ..."));
    let started = Instant::now();
    let outcome = tokio::select! {
        outcome = client.send(message) => outcome.map_err(|error| client_failure(&error, &profile)),
        () = interrupted() => Err(Failure::new(format!("interrupted; message {message_id} may or may not be delivered"))),
    };
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(failure) => {
            client.close().await;
            return Err(failure);
        }
    };
    let milliseconds = started.elapsed().as_millis();
    let accepted = matches!(outcome, Outcome::Delivered | Outcome::Stored);
    let (mut reports, mut missing) = (Vec::new(), None);
    if arguments.report && accepted {
        output.progress("waiting for the report ...");
        missing = wait_for_reports(&mut incoming, &message_id, started, &arguments, &mut reports).await.err();
    }
    client.close().await;
    let (outcome, failure_cause) = words(&outcome);
    let reported_failure = reports.iter().any(|report| report.status != "success");
    let report = if arguments.reports == 1 { reports.pop() } else { None };
    let sent = Sent { message_id: message_id.as_str(), outcome, failure_cause, milliseconds, report, reports };
    output.print(&sent, text)?;
    match missing {
        Some(failure) => Err(failure),
        None if accepted && !reported_failure => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::FAILURE),
    }
}

fn message(arguments: &SendArgs) -> Result<OutgoingMessage, Failure> {
    let payload = match (&arguments.payload, &arguments.payload_file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(path)) => read(path)?,
        (None, None) => return Err(Failure::usage("one of --payload and --payload-file is needed")),
    };
    let mut message = OutgoingMessage::to(recipient(arguments)?, payload).priority(match arguments.priority {
        PriorityArg::High => Priority::High,
        PriorityArg::Middle => Priority::Middle,
        PriorityArg::Low => Priority::Low,
    });
    if let Some(application) = &arguments.app {
        message = message.application_id(parse("--app", application)?);
    }
    if let Some(message_id) = &arguments.message_id {
        message = message.message_id(parse("--message-id", message_id)?);
    }
    if arguments.report {
        message = message.with_report();
    }
    if arguments.store_and_forward {
        let expiration = arguments
            .expires
            .map(|period| OffsetDateTime::now_utc().checked_add(period.try_into().unwrap_or(time::Duration::MAX)));
        let expiration = match expiration {
            Some(None) => return Err(Failure::usage("--expires is too long")),
            Some(some) => some,
            None => None,
        };
        message = message.store_and_forward(expiration);
    }
    Ok(message)
}

fn recipient(arguments: &SendArgs) -> Result<Address, Failure> {
    if let Some(group) = &arguments.group {
        return Ok(Address { addr_type: AddressType::Group, addr: parse("--group", group)? });
    }
    if let Some(topic) = &arguments.topic {
        return Ok(Address::topic(&parse("--topic", topic)?));
    }
    if let Some(area) = &arguments.broadcast {
        return Ok(Address { addr_type: AddressType::Bc, addr: parse("--broadcast", area)? });
    }
    let text = arguments.to.as_deref().unwrap_or_default();
    match text.split_once(':') {
        Some(("ue", id)) => Ok(Address::ue(&parse("--to", id)?)),
        Some(("as", id)) => Ok(Address::application_server(&parse("--to", id)?)),
        _ => Err(Failure::usage(format!("--to: `{text}` names no kind of recipient"))
            .help("write ue:UE_SERVICE_ID or as:AS_SERVICE_ID")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut payload = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut payload)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut payload))
    };
    read.map_err(|error| Failure::new(format!("cannot read the payload from {}: {error}", path.display())))?;
    Ok(payload)
}

/// Waits for the reports on this message. Messages that arrive meanwhile are held, not accepted: they stay with the
/// server for `msgin5g client listen`.
async fn wait_for_reports(
    incoming: &mut IncomingStream,
    message_id: &MessageId,
    started: Instant,
    arguments: &SendArgs,
    reports: &mut Vec<Report>,
) -> Result<(), Failure> {
    let mut held = Vec::new();
    let (count, limit) = (usize::try_from(arguments.reports).unwrap_or(usize::MAX), arguments.report_timeout);
    let waiting = async {
        while reports.len() < count {
            match incoming.next().await {
                Some(Incoming::Report(report)) if report.content().message_id == *message_id => {
                    reports.push(shown(report.content().clone(), started.elapsed().as_millis()));
                    // The report has been seen either way; unacknowledged it would come again.
                    let _ = report.accept().await;
                }
                Some(other) => held.push(other),
                None => return Err(Failure::new("the client ended before the report came")),
            }
        }
        Ok(())
    };
    timeout(limit, waiting).await.unwrap_or_else(|_| {
        Err(Failure::new(format!("no report within {limit:?}"))
            .help("the message is accepted; `msgin5g client listen` shows the report when it comes"))
    })
}

fn shown(report: DeliveryStatusReport, milliseconds: u128) -> Report {
    let status = match report.delivery_status {
        ReportDeliveryStatus::Success => "success".to_owned(),
        ReportDeliveryStatus::Failed => "failed".to_owned(),
        ReportDeliveryStatus::Other(status) => status,
    };
    Report { from: report.originator.to_string(), status, failure_cause: report.failure_cause, milliseconds }
}

fn words(outcome: &Outcome) -> (&str, Option<&str>) {
    match outcome {
        Outcome::Delivered => ("delivered", None),
        Outcome::Stored => ("stored", None),
        Outcome::Failed(cause) => ("failed", Some(cause)),
        Outcome::Other(status) => (status, None),
        _ => ("other", None),
    }
}

fn text(sent: &Sent<'_>) -> String {
    let because = |cause: Option<&str>| cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    let mut text =
        format!("{} {}{} ({} ms)", sent.message_id, sent.outcome, because(sent.failure_cause), sent.milliseconds);
    if let Some(report) = &sent.report {
        let cause = because(report.failure_cause.as_deref());
        text.push_str(&format!("\nreport: {}{cause} ({} ms)", report.status, report.milliseconds));
    }
    for report in &sent.reports {
        let cause = because(report.failure_cause.as_deref());
        text.push_str(&format!("\nreport of {}: {}{cause} ({} ms)", report.from, report.status, report.milliseconds));
    }
    text
}
