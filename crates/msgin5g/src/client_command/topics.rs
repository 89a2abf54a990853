//! `msgin5g client subscribe` and `unsubscribe` (TS 23.554 clause 8.8).

use std::process::ExitCode;

use clap::Args;
use message::MessagingTopic;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Connected, client_failure, connect};
use crate::{
    cli::ProfileArgs,
    keys::parse,
    outcome::{Failure, Output},
};

/// Arguments of `client subscribe`.
#[derive(Args, Debug)]
pub(crate) struct SubscribeArgs {
    #[command(flatten)]
    profile: ProfileArgs,
    /// Messaging Topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// When the subscription ends, such as 2026-12-01T06:00:00Z [default: the operator decides]
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    until: Option<OffsetDateTime>,
}

/// Arguments of `client unsubscribe`.
#[derive(Args, Debug)]
pub(crate) struct UnsubscribeArgs {
    #[command(flatten)]
    profile: ProfileArgs,
    /// Messaging Topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
}

#[derive(Serialize)]
struct Done<'a> {
    /// `subscribed` or `unsubscribed`.
    result: &'static str,
    topics: &'a [String],
    /// When the subscription ends, if the server says.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

pub(super) async fn subscribe(arguments: SubscribeArgs, output: Output) -> Result<ExitCode, Failure> {
    let topics = topics(&arguments.topics)?;
    let Connected { profile, client, .. } = connect(&arguments.profile, output).await?;
    let subscribed = client.subscribe(&topics, arguments.until).await;
    client.close().await;
    let subscription = subscribed.map_err(|error| client_failure(&error, &profile))?;
    let until = subscription.expiration_time.and_then(|until| until.format(&Rfc3339).ok());
    print(&Done { result: "subscribed", topics: &arguments.topics, until }, output)
}

pub(super) async fn unsubscribe(arguments: UnsubscribeArgs, output: Output) -> Result<ExitCode, Failure> {
    let topics = topics(&arguments.topics)?;
    let Connected { profile, client, .. } = connect(&arguments.profile, output).await?;
    let unsubscribed = client.unsubscribe(&topics).await;
    client.close().await;
    unsubscribed.map_err(|error| client_failure(&error, &profile))?;
    print(&Done { result: "unsubscribed", topics: &arguments.topics, until: None }, output)
}

fn topics(names: &[String]) -> Result<Vec<MessagingTopic>, Failure> {
    names.iter().map(|name| parse("TOPIC", name)).collect()
}

fn print(done: &Done<'_>, output: Output) -> Result<ExitCode, Failure> {
    output.print(done, |done| {
        let until = done.until.as_ref().map(|until| format!(" until {until}")).unwrap_or_default();
        format!("{}{until}: {}", done.result, done.topics.join(" "))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn point_in_time(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| format!("`{text}` is not a time; write 2026-12-01T06:00:00Z"))
}
