//! `msgin5g client`: a device on the command line.

mod configure;
mod listen;
mod send;
mod serve;
mod state;
mod stored;
mod topics;

use std::{
    fs::Permissions,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    process::ExitCode,
    time::Duration,
};

pub(crate) use serve::ServeArgs;
pub(crate) use stored::{DiscardArgs, UpdateArgs};
pub(crate) use topics::{SubscribeArgs, UnsubscribeArgs};

use client::{Client, ClientError, ClientState, IncomingStream, SharedKeySource};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{
    cli::{ClientCommand, ProfileArgs, ProfileFromLabArgs},
    outcome::{Failure, Output, chain},
    profile::{KEYS_FILE, Lab, Profile, ProfileFile, from_lab},
};

pub(crate) async fn run(command: ClientCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        ClientCommand::Profile(arguments) => write_profile(&arguments, output),
        ClientCommand::Authenticate(arguments) => authenticate(&arguments, output).await,
        ClientCommand::Configure(arguments) => Box::pin(configure::run(arguments, output)).await,
        ClientCommand::Register(arguments) => register(&arguments, output).await,
        ClientCommand::Send(arguments) => send::run(arguments, output).await,
        ClientCommand::Listen(arguments) => listen::run(arguments, output).await,
        ClientCommand::Serve(arguments) => Box::pin(serve::run(arguments, output)).await,
        ClientCommand::Subscribe(arguments) => Box::pin(topics::subscribe(arguments, output)).await,
        ClientCommand::Unsubscribe(arguments) => Box::pin(topics::unsubscribe(arguments, output)).await,
        ClientCommand::Update(arguments) => Box::pin(stored::update(arguments, output)).await,
        ClientCommand::Discard(arguments) => Box::pin(stored::discard(arguments, output)).await,
        ClientCommand::Status(arguments) => state::show(&arguments, output),
        ClientCommand::Deregister(arguments) => deregister(&arguments, output).await,
    }
}

#[derive(Serialize)]
struct WrittenProfile {
    profile: String,
    /// None if the Configuration Function says.
    #[serde(skip_serializing_if = "Option::is_none")]
    ue_service_id: Option<String>,
}

fn write_profile(arguments: &ProfileFromLabArgs, output: Output) -> Result<ExitCode, Failure> {
    let lab = Lab::open(&arguments.lab)?;
    let text = from_lab(&lab, arguments)?;
    let Some(path) = &arguments.out else {
        let profile: toml::Table = text.parse().map_err(|_| Failure::new("the lab's description makes no profile"))?;
        output.print(&profile, |_| text)?;
        return Ok(ExitCode::SUCCESS);
    };
    write_private(path, &text).map_err(|error| {
        Failure::new(format!("cannot write {}: {error}", path.display())).help("give a file that you may write")
    })?;
    let ue_service_id = ProfileFile::load(path)?.ue_service_id().map(|id| id.to_string());
    let written = WrittenProfile { profile: path.display().to_string(), ue_service_id };
    output.print(&written, |written| {
        let who = written.ue_service_id.as_deref().unwrap_or("who it is, the Configuration Function says");
        format!("{}: {who}", written.profile)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A profile holds the keys of a SIM: only its owner may read it, whoever could read what was there before.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

#[derive(Serialize)]
struct Authenticated {
    a_kid: String,
    keys: String,
}

async fn authenticate(arguments: &ProfileArgs, output: Output) -> Result<ExitCode, Failure> {
    let profile = ProfileFile::load(&arguments.profile)?;
    let source = profile.key_source()?;
    output.progress("authenticating ...");
    let material = timeout(arguments.timeout, source.renew())
        .await
        .map_err(|_| Failure::new(format!("no keys within {:?}", arguments.timeout)).help("is the home network up?"))?
        .map_err(|error| key_failure(&error))?;
    let keys = profile.state_dir.join(KEYS_FILE).display().to_string();
    output.print(&Authenticated { a_kid: material.a_kid.to_string(), keys }, |authenticated| {
        format!("authenticated: A-KID {}\nkeys kept in {}", authenticated.a_kid, authenticated.keys)
    })?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Registered {
    result: &'static str,
    ue_service_id: String,
    server: String,
    a_kid: String,
    tls_version: String,
    cipher: &'static str,
}

async fn register(arguments: &ProfileArgs, output: Output) -> Result<ExitCode, Failure> {
    let connected = connect(arguments, output).await?;
    let status = connected.client.status();
    let registered = Registered {
        result: "registered",
        ue_service_id: connected.profile.ue_service_id.to_string(),
        server: connected.profile.server.address.clone(),
        a_kid: status.a_kid.map(|a_kid| a_kid.to_string()).unwrap_or_default(),
        tls_version: status.tls_version.unwrap_or_default(),
        cipher: status.cipher.unwrap_or_default(),
    };
    output.print(&registered, |registered| {
        format!(
            "registered {} at {} over {} ({})",
            registered.ue_service_id, registered.server, registered.tls_version, registered.cipher
        )
    })?;
    connected.client.close().await;
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Deregistered {
    result: &'static str,
    ue_service_id: String,
}

async fn deregister(arguments: &ProfileArgs, output: Output) -> Result<ExitCode, Failure> {
    // Only the UE itself may withdraw, and it proves to be it by registering (TS 33.501 clause Y.2).
    let connected = connect(arguments, output).await?;
    connected.client.deregister().await.map_err(|error| client_failure(&error, &connected.profile))?;
    state::note(&connected.profile, false);
    let deregistered =
        Deregistered { result: "deregistered", ue_service_id: connected.profile.ue_service_id.to_string() };
    output.print(&deregistered, |deregistered| format!("de-registered {}", deregistered.ue_service_id))?;
    Ok(ExitCode::SUCCESS)
}

/// A registered client.
struct Connected {
    profile: Profile,
    client: Client,
    incoming: IncomingStream,
}

async fn connect(arguments: &ProfileArgs, output: Output) -> Result<Connected, Failure> {
    let file = ProfileFile::load(&arguments.profile)?;
    let source = SharedKeySource::new(file.key_source()?);
    let profile = Box::pin(file.configured(&source, arguments.timeout)).await?;
    Box::pin(connect_as(profile, source, arguments.timeout, output)).await
}

/// Connects and registers as a profile says, within `limit`.
async fn connect_as(
    profile: Profile,
    source: SharedKeySource,
    limit: Duration,
    output: Output,
) -> Result<Connected, Failure> {
    let config = profile.client_config(limit);
    output.progress(format_args!("connecting to {} ({}) ...", profile.server.fqdn, profile.server.address));
    let (client, incoming) = Client::start(config, source).map_err(|error| client_failure(&error, &profile))?;
    let registered = tokio::select! {
        registered = timeout(limit, client.registered()) => registered,
        () = follow(&client, output) => return Err(Failure::new("the client ended")),
        () = interrupted() => return Err(Failure::new("interrupted")),
    };
    match registered {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(client_failure(&error, &profile)),
        Err(_) => return Err(not_in_time(&client, limit, &profile)),
    }
    state::note(&profile, true);
    Ok(Connected { profile, client, incoming })
}

/// Shows a person what is being waited for. Ends when the client does.
async fn follow(client: &Client, output: Output) {
    let mut status = client.watch();
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        if let (ClientState::Waiting, Some(error)) = (now.state, &now.last_error) {
            output.progress(format_args!("{error}; trying again ..."));
        }
    }
}

fn not_in_time(client: &Client, limit: Duration, profile: &Profile) -> Failure {
    match client.status().last_error {
        Some(error) => client_failure(&error, profile),
        None => Failure::new(format!("not registered within {limit:?}"))
            .help("give more time with --timeout, or see what happens with --log info"),
    }
}

/// Ends at SIGINT or SIGTERM.
async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn key_failure(error: &client::KeySourceError) -> Failure {
    Failure::new(chain(error)).help(match error {
        client::KeySourceError::Unavailable(_) => "is the home network up, and is keys.usim.ausf its address?",
        client::KeySourceError::Authentication(_) => "are supi, k and opc those of the subscriber at the UDM?",
        client::KeySourceError::NothingNewer { .. } => "run a new primary authentication and fill it again",
        _ => "see the section [keys] of the profile",
    })
}

/// What went wrong, and what the user can do about it.
fn client_failure(error: &ClientError, profile: &Profile) -> Failure {
    let failure = Failure::new(chain(error));
    match error {
        ClientError::Keys(error) => key_failure(error),
        ClientError::Unreachable { .. } => failure.help("is the server up, and is server.address its address?"),
        ClientError::WebSocket(_) => {
            failure.help("is server.address where the server has [websocket], not where it serves CoAP over TCP?")
        }
        ClientError::KeysRefused(_) => failure.help(
            "is AKMA allowed for the subscriber, is server.fqdn the server's own name, and does its AAnF answer?",
        ),
        ClientError::RegistrationRefused { cause, .. } if cause == "NOT_ASSOCIATED" => failure.help(format!(
            "associate them: msgin5g association add --ue-id SUPI --ue-service-id {} --lab DIR/lab.json",
            profile.ue_service_id
        )),
        ClientError::StateInUse { .. } => {
            failure.help("stop the other `msgin5g client` that uses this profile, or use another profile")
        }
        ClientError::Refused { cause, .. } => match cause.as_str() {
            "TOPIC_NOT_ALLOWED" => failure.help("does a [[topic]] of the server's configuration name this client?"),
            "MESSAGE_NOT_STORED" => failure.help("it is delivered, expired or discarded, or was never stored"),
            _ => failure,
        },
        ClientError::NoAnswer { message_id } => {
            failure.help(format!("send it again with --message-id {message_id}: it will not be delivered twice"))
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_profile_is_its_owners_even_where_anybody_could_read_the_file_before() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new.toml"), folder.path().join("old.toml"));
        std::fs::write(&old, "a longer text than the new one").unwrap();
        std::fs::set_permissions(&old, Permissions::from_mode(0o644)).unwrap();
        for path in [&new, &old] {
            write_private(path, "k").unwrap();
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(std::fs::read_to_string(path).unwrap(), "k");
        }
    }
}
