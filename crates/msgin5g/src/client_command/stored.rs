//! `msgin5g client update` and `discard`: messages of this client that the server has stored (TS 23.554 clause 8.3.6.1).

use std::{process::ExitCode, time::Duration};

use clap::Args;
use message::MessageId;
use serde::Serialize;
use time::OffsetDateTime;

use super::{Connected, client_failure, connect};
use crate::{
    cli::{ProfileArgs, duration},
    keys::parse,
    outcome::{Failure, Output},
};

/// Arguments of `client update`.
#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    profile: ProfileArgs,
    /// Message ID of the stored message
    #[arg(long, value_name = "ID")]
    message_id: String,
    /// How long from now the server may keep it
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires: Duration,
}

/// Arguments of `client discard`.
#[derive(Args, Debug)]
pub(crate) struct DiscardArgs {
    #[command(flatten)]
    profile: ProfileArgs,
    /// Message ID of the stored message
    #[arg(long, value_name = "ID")]
    message_id: String,
}

#[derive(Serialize)]
struct Done<'a> {
    /// `updated` or `discarded`.
    result: &'static str,
    message_id: &'a str,
}

pub(super) async fn update(arguments: UpdateArgs, output: Output) -> Result<ExitCode, Failure> {
    let message_id: MessageId = parse("--message-id", &arguments.message_id)?;
    let period = arguments.expires.try_into().unwrap_or(time::Duration::MAX);
    let until = OffsetDateTime::now_utc().checked_add(period).ok_or_else(|| Failure::usage("--expires is too long"))?;
    let Connected { profile, client, .. } = connect(&arguments.profile, output).await?;
    let updated = client.update_stored(&message_id, until).await;
    client.close().await;
    updated.map_err(|error| client_failure(&error, &profile))?;
    print(&Done { result: "updated", message_id: message_id.as_str() }, output)
}

pub(super) async fn discard(arguments: DiscardArgs, output: Output) -> Result<ExitCode, Failure> {
    let message_id: MessageId = parse("--message-id", &arguments.message_id)?;
    let Connected { profile, client, .. } = connect(&arguments.profile, output).await?;
    let discarded = client.discard_stored(&message_id).await;
    client.close().await;
    discarded.map_err(|error| client_failure(&error, &profile))?;
    print(&Done { result: "discarded", message_id: message_id.as_str() }, output)
}

fn print(done: &Done<'_>, output: Output) -> Result<ExitCode, Failure> {
    output.print(done, |done| format!("{} {}", done.result, done.message_id))?;
    Ok(ExitCode::SUCCESS)
}
