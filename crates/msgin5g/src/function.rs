//! Runs one network function until it is told to stop.

use std::{path::Path, process::ExitCode};

use serde::{Serialize, de::DeserializeOwned};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    outcome::{Failure, Output, chain},
    overlay,
};

/// A network function of this program, and how its configuration is read and checked.
pub(crate) trait Function {
    /// Its configuration file.
    type Config: DeserializeOwned;
    /// Its name on the command line.
    const NAME: &'static str;

    /// Checks what the types cannot, and the policy file that it may name.
    fn check(config: &Self::Config) -> Result<(), String>;

    /// Opens every other file that its start opens.
    fn check_files(config: &Self::Config) -> Result<(), String>;

    /// Starts it; yields where it listens, and a future that ends when it has stopped.
    async fn start(
        config: Self::Config,
        shutdown: CancellationToken,
    ) -> Result<(Addresses, impl Future<Output = ()>), String>;
}

/// Where a function listens.
#[derive(Debug, Serialize)]
pub(crate) struct Addresses {
    /// Its main interface.
    pub(crate) listen: String,
    /// Its HTTP/2 API, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api: Option<String>,
    /// Its interface for UEs, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) coap: Option<String>,
    /// Health and metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin: Option<String>,
    /// Its interface for UEs over HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) https: Option<String>,
}

/// The MSGin5G Server.
pub(crate) struct Server;
/// The AKMA anchor function.
pub(crate) struct Aanf;
/// The MSGin5G Configuration Function.
pub(crate) struct Configuration;
/// The NEF, the CAPIF core function, or both.
pub(crate) struct Exposure;

impl Function for Server {
    type Config = server::Config;
    const NAME: &'static str = "server";

    fn check(config: &Self::Config) -> Result<(), String> {
        config.clone().with_policy().and_then(|config| config.check()).map_err(|error| chain(&error))
    }

    fn check_files(config: &Self::Config) -> Result<(), String> {
        config.check_files().map_err(|error| chain(&error))
    }

    async fn start(
        config: Self::Config,
        shutdown: CancellationToken,
    ) -> Result<(Addresses, impl Future<Output = ()>), String> {
        let running = Box::pin(server::start(config, shutdown)).await.map_err(|error| chain(&error))?;
        let addresses = Addresses {
            listen: running.coap_address().to_string(),
            api: Some(running.api_address().to_string()),
            coap: None,
            admin: Some(running.admin_address().to_string()),
            https: running.https_address().map(|address| address.to_string()),
        };
        Ok((addresses, async move { running.stopped().await }))
    }
}

impl Function for Aanf {
    type Config = aanf::Config;
    const NAME: &'static str = "aanf";

    fn check(config: &Self::Config) -> Result<(), String> {
        config.clone().with_policy().and_then(|config| config.check()).map_err(|error| chain(&error))
    }

    fn check_files(config: &Self::Config) -> Result<(), String> {
        config.check_files().map_err(|error| chain(&error))
    }

    async fn start(
        config: Self::Config,
        shutdown: CancellationToken,
    ) -> Result<(Addresses, impl Future<Output = ()>), String> {
        let running = Box::pin(aanf::start(config, shutdown)).await.map_err(|error| chain(&error))?;
        let addresses = Addresses {
            listen: running.local_addr().to_string(),
            api: None,
            coap: None,
            admin: running.admin_addr().map(|address| address.to_string()),
            https: None,
        };
        Ok((addresses, async move { running.stopped().await }))
    }
}

impl Function for Configuration {
    type Config = configuration::Config;
    const NAME: &'static str = "configuration";

    fn check(config: &Self::Config) -> Result<(), String> {
        config.clone().with_policy().and_then(|config| config.check()).map_err(|error| chain(&error))
    }

    fn check_files(config: &Self::Config) -> Result<(), String> {
        config.check_files().map_err(|error| chain(&error))
    }

    async fn start(
        config: Self::Config,
        shutdown: CancellationToken,
    ) -> Result<(Addresses, impl Future<Output = ()>), String> {
        let running = Box::pin(configuration::start(config, shutdown)).await.map_err(|error| chain(&error))?;
        let addresses = Addresses {
            listen: running.local_addr().to_string(),
            api: None,
            coap: running.coap_addr().map(|address| address.to_string()),
            admin: running.admin_addr().map(|address| address.to_string()),
            https: None,
        };
        Ok((addresses, async move { running.stopped().await }))
    }
}

impl Function for Exposure {
    type Config = exposure::Config;
    const NAME: &'static str = "exposure";

    fn check(config: &Self::Config) -> Result<(), String> {
        config.clone().with_policy().and_then(|config| config.check()).map_err(|error| chain(&error))
    }

    fn check_files(config: &Self::Config) -> Result<(), String> {
        config.check_files().map_err(|error| chain(&error))
    }

    async fn start(
        config: Self::Config,
        shutdown: CancellationToken,
    ) -> Result<(Addresses, impl Future<Output = ()>), String> {
        let running = Box::pin(exposure::start(config, shutdown)).await.map_err(|error| chain(&error))?;
        let (nef, capif) = (running.nef(), running.capif());
        let nef_address = nef.map(|nef| nef.local_addr().to_string());
        let capif_address = capif.map(|capif| capif.local_addr().to_string());
        let addresses = Addresses {
            // At least one of them runs: the configuration was checked.
            listen: nef_address.clone().or(capif_address.clone()).unwrap_or_default(),
            api: nef_address.and(capif_address),
            coap: None,
            admin: nef.and_then(exposure::nef::Running::admin_addr).map(|address| address.to_string()),
            https: None,
        };
        Ok((addresses, async move { running.stopped().await }))
    }
}

/// What a function prints once it serves.
#[derive(Serialize)]
struct Ready {
    ready: &'static str,
    #[serde(flatten)]
    addresses: Addresses,
}

/// Reads the configuration, runs the function, and stops it in good order at SIGINT or SIGTERM.
pub(crate) async fn run<F: Function>(file: &Path, output: Output) -> Result<ExitCode, Failure> {
    let config = overlay::load::<F::Config>(file)?;
    let failed = |reason: String| Failure::new(format!("{}: {reason}", F::NAME));
    F::check(&config).map_err(&failed)?;
    // Taken before the start, so that a signal during it ends in order too.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| failed(error.to_string()))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed(error.to_string()))?;
    let shutdown = CancellationToken::new();
    let (addresses, stopped) = F::start(config, shutdown.clone()).await.map_err(&failed)?;
    tracing::info!(function = F::NAME, listen = %addresses.listen, version = env!("CARGO_PKG_VERSION"), "serving");
    output.print(&Ready { ready: F::NAME, addresses }, |ready| {
        let also = |name: &str, address: &Option<String>| {
            address.as_ref().map(|address| format!(", {name} {address}")).unwrap_or_default()
        };
        let Addresses { listen, api, coap, admin, https } = &ready.addresses;
        let others = [("api", api), ("coap", coap), ("https", https), ("admin", admin)];
        let others: String = others.into_iter().map(|(name, address)| also(name, address)).collect();
        format!("READY {} {listen}{others}", ready.ready)
    })?;
    let mut stopped = std::pin::pin!(stopped);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = &mut stopped => return Err(failed("stopped by itself; the log says why".into())),
    }
    tracing::info!(function = F::NAME, "stopping");
    shutdown.cancel();
    tokio::select! {
        () = stopped => {}
        // A second signal: whoever sent it does not want to wait.
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}
