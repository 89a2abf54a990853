//! `msgin5g client serve`: one client for all applications of a machine (TS 23.554 clause 8.11).

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::Args;
use client::{ApplicationInterface, ApplicationsConfig, ClientError, SharedKeySource, SocketAccess, UeConfiguration};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Connected, client_failure, connect_as};
use crate::{
    cli::ProfileArgs,
    outcome::{Failure, Output, chain},
    overlay,
    profile::{ProfileFile, configuration_failure},
};

/// Arguments of `client serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,
    /// The socket that applications connect to; one left over from a crash is replaced
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// Which applications there are and what each may do (TOML) [default: programs of this user may do anything]
    #[arg(long, value_name = "FILE")]
    pub(crate) applications: Option<PathBuf>,
    /// Let programs of this user's group connect, too: mode 0660 instead of 0600
    #[arg(long)]
    pub(crate) group_access: bool,
}

#[derive(Serialize)]
struct Ready {
    ready: &'static str,
    socket: String,
    ue_service_id: String,
    server: String,
}

/// SIGINT and SIGTERM, from when this was made.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Why serving ended.
enum End {
    Interrupted,
    /// The Configuration Function says something else now.
    Reconfigured,
}

pub(super) async fn run(arguments: ServeArgs, output: Output) -> Result<ExitCode, Failure> {
    let applications = applications(arguments.applications.as_deref())?;
    // Taken before anything is opened: a signal that comes at any time is seen.
    let mut stop = Stop::new().map_err(|error| Failure::new(format!("cannot wait for signals: {error}")))?;
    loop {
        match Box::pin(serve(&arguments, applications.clone(), &mut stop, output)).await? {
            End::Interrupted => return Ok(ExitCode::SUCCESS),
            End::Reconfigured => tracing::warn!("the configuration of this UE has changed; starting again with it"),
        }
    }
}

fn applications(file: Option<&Path>) -> Result<ApplicationsConfig, Failure> {
    let Some(file) = file else { return Ok(ApplicationsConfig::of_user(rustix::process::geteuid().as_raw())) };
    let applications: ApplicationsConfig = overlay::load_alone(file)?;
    applications.check().map_err(|error| Failure::new(format!("{}: {}", file.display(), chain(&error))))?;
    Ok(applications)
}

async fn serve(
    arguments: &ServeArgs,
    applications: ApplicationsConfig,
    stop: &mut Stop,
    output: Output,
) -> Result<End, Failure> {
    let file = ProfileFile::load(&arguments.profile.profile)?;
    let source = SharedKeySource::new(file.key_source()?);
    let function = file.configuration_function();
    let profile = Box::pin(file.configured(&source, arguments.profile.timeout)).await?;
    let access = if arguments.group_access { SocketAccess::Group } else { SocketAccess::Owner };
    // Before anything is asked of the network: a socket in use is no reason to register.
    let interface =
        ApplicationInterface::bind(applications, &arguments.socket, access).map_err(|error| match error {
            ClientError::State { .. } => {
                Failure::new(chain(&error)).help("give a path that you may write, and no file")
            }
            _ => Failure::new(chain(&error)),
        })?;
    let known = function.as_ref().and_then(|(function, kept)| function.kept(kept));
    let mut followed = match &function {
        Some((function, kept)) => {
            let following = function.follow(Arc::new(source.clone()), Some(kept.clone()));
            Some(following.map_err(|error| configuration_failure(&error))?)
        }
        None => None,
    };
    let connecting = connect_as(profile, source, arguments.profile.timeout, output);
    let Connected { profile, client, incoming } = Box::pin(connecting).await?;
    let ready = Ready {
        ready: "client",
        socket: interface.path().display().to_string(),
        ue_service_id: profile.ue_service_id.to_string(),
        server: profile.server.address.clone(),
    };
    output.print(&ready, |ready| format!("READY {} {} at {}", ready.socket, ready.ue_service_id, ready.server))?;
    let closing = CancellationToken::new();
    let mut serving = std::pin::pin!(interface.serve(client.clone(), incoming, closing.clone()));
    let end = tokio::select! {
        () = &mut serving => {
            let error = client.status().last_error.unwrap_or(ClientError::Closed);
            return Err(client_failure(&error, &profile));
        }
        () = stop.told() => End::Interrupted,
        () = changed(&mut followed, known.as_ref()) => End::Reconfigured,
    };
    closing.cancel();
    serving.await;
    client.close().await;
    Ok(end)
}

/// Ends when the Configuration Function says something else than `known`.
async fn changed(followed: &mut Option<client::FollowedConfiguration>, known: Option<&UeConfiguration>) {
    match (followed, known) {
        (Some(followed), Some(known)) => drop(followed.changed_from(known).await),
        _ => std::future::pending().await,
    }
}
