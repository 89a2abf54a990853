//! `msgin5g client listen`: what arrives, as it arrives.

use std::{process::ExitCode, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use client::{Incoming, IncomingStream};
use message::{DeliveryStatusReport, Message};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::{Connected, client_failure, connect, interrupted};
use crate::{
    cli::ListenArgs,
    outcome::{Failure, Output, chain},
    profile::Profile,
};

/// One thing that arrived.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Arrived<'a> {
    Message {
        from: String,
        /// The group or topic that it was sent to, if to one.
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        message_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        application_id: Option<&'a str>,
        priority: &'static str,
        report_wanted: bool,
        /// Base64.
        payload: String,
        /// The payload, where it is text.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
    },
    Report {
        from: String,
        message_id: &'a str,
        status: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        failure_cause: Option<&'a str>,
    },
}

pub(super) async fn run(arguments: ListenArgs, output: Output) -> Result<ExitCode, Failure> {
    let Connected { profile, client, mut incoming } = connect(&arguments.profile, output).await?;
    output.progress(format_args!("registered as {}; listening, stop with Ctrl-C", profile.ue_service_id));
    let end = arguments.period.map(|period: Duration| Instant::now() + period);
    let result = tokio::select! {
        result = receive(&mut incoming, arguments.count, output, &profile) => result,
        () = async { match end { Some(end) => sleep_until(end).await, None => std::future::pending().await } } => {
            match arguments.count {
                // Fewer came than were asked for.
                Some(_) => Ok(ExitCode::FAILURE),
                None => Ok(ExitCode::SUCCESS),
            }
        }
        () = interrupted() => Ok(ExitCode::SUCCESS),
    };
    client.close().await;
    result
}

/// Prints what arrives until `count` messages were accepted. What cannot be printed is not accepted, and so comes again.
async fn receive(
    incoming: &mut IncomingStream,
    count: Option<u64>,
    output: Output,
    profile: &Profile,
) -> Result<ExitCode, Failure> {
    let mut messages = 0;
    while count.is_none_or(|count| messages < count) {
        let accepted = match incoming.next().await {
            Some(Incoming::Message(message)) => {
                print(output, &shown_message(message.content()))?;
                messages += 1;
                message.accept().await
            }
            Some(Incoming::Report(report)) => {
                print(output, &shown_report(report.content()))?;
                report.accept().await
            }
            Some(_) => continue,
            None => return Err(Failure::new("the client ended")),
        };
        accepted.map_err(|error| client_failure(&error, profile))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(output: Output, arrived: &Arrived<'_>) -> Result<(), Failure> {
    output.try_print(arrived, text).map_err(|error| {
        Failure::new(format!("cannot write to standard output: {}", chain(&error)))
            .help("what was not printed stays with the server")
    })
}

fn shown_message(message: &Message) -> Arrived<'_> {
    Arrived::Message {
        from: message.originator.to_string(),
        to: message.destination.as_ue().is_none().then(|| message.destination.to_string()),
        message_id: message.message_id.as_str(),
        application_id: message.application_id.as_ref().map(|id| id.as_str()),
        priority: message.priority.as_str(),
        report_wanted: message.delivery_status_required,
        payload: STANDARD.encode(&message.payload),
        text: std::str::from_utf8(&message.payload).ok(),
    }
}

fn shown_report(report: &DeliveryStatusReport) -> Arrived<'_> {
    Arrived::Report {
        from: report.originator.to_string(),
        message_id: report.message_id.as_str(),
        status: report.delivery_status.as_str(),
        failure_cause: report.failure_cause.as_deref(),
    }
}

fn text(arrived: &Arrived<'_>) -> String {
    match arrived {
        Arrived::Message { from, to, application_id, priority, payload, text, .. } => {
            let content = match text {
                // Control characters could drive the reader's terminal.
                Some(text) => text.escape_debug().to_string(),
                None => format!("base64 {payload}"),
            };
            let from = to.as_ref().map_or_else(|| from.clone(), |to| format!("{from} to {to}"));
            format!("{from:<40} {priority:<6} {:<16} {content}", application_id.unwrap_or("-"))
        }
        Arrived::Report { from, message_id, status, failure_cause } => {
            format!("{from:<40} report {message_id} {status} {}", failure_cause.unwrap_or_default())
        }
    }
}
