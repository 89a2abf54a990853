//! The functions of a lab, running.

use std::{
    borrow::Cow,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use lab::{Directory, LabGroup, LabJson, Ports, Revocations, SubscriberClient, ausf, nrf, udm};
use message::{ServiceAddress, UeServiceId};
use prometheus_client::registry::Registry;
use sbi::{
    SbiClient, SbiClientConfig,
    admin::{AdminServer, Health},
    association::AssociationClient,
    ss_gm::{GroupConfiguration, SsGmClient, VALGroupDocument},
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::outcome::Failure;

/// How to start a lab.
pub(crate) struct Options {
    pub(crate) directory: PathBuf,
    pub(crate) base_port: Option<u16>,
    pub(crate) key_log: Option<PathBuf>,
}

/// A lab whose functions all run, each behind its real interface.
pub(crate) struct RunningLab {
    directory: Directory,
    description: LabJson,
    lab_json: PathBuf,
    /// In the order they stop: each before those it asks.
    server: Option<RunningServer>,
    exposure: Option<RunningExposure>,
    ausf: ausf::Running,
    aanf: aanf::Running,
    configuration: configuration::Running,
    udm: udm::Running,
    nrf: nrf::Running,
    /// Shows the metrics of UDM, AUSF and NRF.
    admin: AdminServer,
    /// Ends the NRF, which the others still leave when they stop.
    nrf_shutdown: CancellationToken,
    core: CancellationToken,
}

struct RunningExposure {
    running: exposure::Running,
    shutdown: CancellationToken,
}

struct RunningServer {
    running: server::Running,
    shutdown: CancellationToken,
}

impl RunningLab {
    /// Makes the directory if need be, starts every function from its configuration file, and writes `lab.json`.
    pub(crate) async fn start(options: Options) -> Result<Self, Failure> {
        let mut directory = Directory::open_or_create(&options.directory).map_err(failure)?;
        directory.remove_lab_json().map_err(failure)?;
        directory.log_keys_to(options.key_log.map(std::path::absolute).transpose().map_err(failure)?);
        let ports = directory.choose_ports(options.base_port).map_err(failure)?;
        directory.write_configurations(&ports).map_err(failure)?;

        let core = CancellationToken::new();
        let revocations = Directory::revocations(directory.root()).map_err(failure)?;
        tokio::spawn(renew_crl(revocations, core.clone()));
        let start = |name: &'static str| move |error: &dyn std::error::Error| start_failure(name, error);
        let mut metrics = Registry::default();
        let nrf_shutdown = CancellationToken::new();
        let nrf = nrf::start_observed(read(&directory, "nrf")?, nrf_shutdown.clone(), of(&mut metrics, "nrf"))
            .await
            .map_err(|error| start("NRF")(&error))?;
        let udm = udm::start_observed(read(&directory, "udm")?, core.clone(), of(&mut metrics, "udm"))
            .await
            .map_err(|error| start("UDM")(&error))?;
        let configuration = configuration::start(read(&directory, "configuration")?, core.clone())
            .await
            .map_err(|error| start("Configuration Function")(&error))?;
        let aanf = aanf::start(read(&directory, "aanf")?, core.clone()).await.map_err(|error| start("AAnF")(&error))?;
        let ausf = ausf::start_observed(read(&directory, "ausf")?, core.clone(), of(&mut metrics, "ausf"))
            .await
            .map_err(|error| start("AUSF")(&error))?;
        let admin = AdminServer::start(ports.core_admin, Arc::new(metrics), Health::new(), nrf_shutdown.clone())
            .await
            .map_err(|error| start("metrics of the core")(&error))?;
        provision(&mut directory, &ports).await?;
        registered(&nrf, &directory, &["udm", "configuration", "aanf", "ausf"]).await?;

        let description = directory.lab_json(&ports);
        // As the user wrote it, so that a script finds in the READY line the path it gave.
        let lab_json = options.directory.join("lab.json");
        let mut lab = Self {
            directory,
            description,
            lab_json,
            server: None,
            exposure: None,
            ausf,
            aanf,
            configuration,
            udm,
            nrf,
            admin,
            nrf_shutdown,
            core,
        };
        lab.start_server().await?;
        lab.start_exposure().await?;
        // Last: whoever finds the file finds everything running.
        lab.directory.write_lab_json(&ports).map_err(failure)?;
        Ok(lab)
    }

    /// `lab.json` on disk.
    pub(crate) fn lab_json(&self) -> &Path {
        &self.lab_json
    }

    /// What is in `lab.json`.
    pub(crate) fn description(&self) -> &LabJson {
        &self.description
    }

    /// The lab's directory.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Starts the MSGin5G Server, if it does not run.
    pub(crate) async fn start_server(&mut self) -> Result<(), Failure> {
        if self.server.is_none() {
            let shutdown = CancellationToken::new();
            let running = Box::pin(server::start(read(&self.directory, "server")?, shutdown.clone()))
                .await
                .map_err(|error| start_failure("MSGin5G Server", &error))?;
            self.server = Some(RunningServer { running, shutdown });
            registered(&self.nrf, &self.directory, &["server"]).await?;
        }
        Ok(())
    }

    /// Starts NEF and CAPIF core function, if they do not run.
    pub(crate) async fn start_exposure(&mut self) -> Result<(), Failure> {
        if self.exposure.is_none() {
            let shutdown = CancellationToken::new();
            let running = Box::pin(exposure::start(read(&self.directory, "exposure")?, shutdown.clone()))
                .await
                .map_err(|error| start_failure("NEF", &error))?;
            self.exposure = Some(RunningExposure { running, shutdown });
            registered(&self.nrf, &self.directory, &["nef", "capif"]).await?;
        }
        Ok(())
    }

    /// Stops NEF and CAPIF core function and waits until they have stopped.
    pub(crate) async fn stop_exposure(&mut self) {
        if let Some(exposure) = self.exposure.take() {
            exposure.shutdown.cancel();
            exposure.running.stopped().await;
        }
    }

    /// Stops the MSGin5G Server and waits until it has stopped.
    pub(crate) async fn stop_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown.cancel();
            server.running.stopped().await;
        }
    }

    /// Stops everything: the server first, while those it asks still answer.
    pub(crate) async fn stop(mut self) {
        self.stop_server().await;
        self.stop_exposure().await;
        self.core.cancel();
        self.ausf.stopped().await;
        self.aanf.stopped().await;
        self.configuration.stopped().await;
        self.udm.stopped().await;
        self.nrf_shutdown.cancel();
        self.nrf.stopped().await;
        self.admin.stopped().await;
    }
}

/// Where the metrics of `function` go among those of the core.
fn of<'a>(metrics: &'a mut Registry, function: &'static str) -> &'a mut Registry {
    metrics.sub_registry_with_label((Cow::Borrowed("function"), Cow::Borrowed(function)))
}

/// Keeps the CRLs from running out while the lab runs.
async fn renew_crl(revocations: Revocations, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(lab::CRL_RENEWAL) => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = revocations.write() {
            tracing::error!(target: "security", %error, "the CRLs were not renewed");
        }
    }
}

/// How long functions may take to register.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until these functions are registered: from then on whoever asks the NRF finds them, and gets tokens for them.
async fn registered(nrf: &nrf::Running, directory: &Directory, names: &[&str]) -> Result<(), Failure> {
    let ids =
        names.iter().map(|name| directory.nf_instance_id(name)).collect::<Result<Vec<_>, _>>().map_err(failure)?;
    let registered = async {
        loop {
            let known = nrf.registered();
            if ids.iter().all(|id| known.contains(id)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(REGISTRATION_TIMEOUT, registered)
        .await
        .map_err(|_| Failure::new(format!("not registered at the NRF of the lab in time: one of {}", names.join(", "))))
}

/// Puts the subscribers of a new lab into UDM, and their UE Service IDs and a group into the Configuration Function, over
/// the interfaces that any provisioner uses.
async fn provision(directory: &mut Directory, ports: &Ports) -> Result<(), Failure> {
    if directory.is_provisioned() {
        return Ok(());
    }
    let tls = directory.certificate("provisioner");
    let http = SbiClient::new(SbiClientConfig { tls, limits: sbi::ClientLimits::default() }).map_err(failure)?;
    let subscribers = SubscriberClient::new(http.clone(), &format!("https://{}", ports.udm));
    let associations = AssociationClient::new(http.clone(), format!("https://{}", ports.configuration));
    let groups = SsGmClient::new(http, format!("https://{}", ports.configuration));
    for subscription in directory.subscriptions() {
        subscribers.put(&subscription).await.map_err(failure)?;
    }
    for subscriber in &directory.network().subscribers {
        let ue_service_id = subscriber.ue_service_id.parse().map_err(failure)?;
        associations.associate(&subscriber.supi.clone().into(), &ue_service_id).await.map_err(failure)?;
    }
    provision_group(&directory.group(), &groups).await?;
    directory.set_provisioned().map_err(failure)
}

async fn provision_group(group: &LabGroup, groups: &SsGmClient) -> Result<(), Failure> {
    let id: ServiceAddress = group.group_service_id.parse().map_err(failure)?;
    // A start that was interrupted has made it already.
    if groups.document(&id).await.map_err(failure)?.is_some() {
        return Ok(());
    }
    let members: Vec<UeServiceId> =
        group.members.iter().map(|id| id.parse()).collect::<Result<_, _>>().map_err(failure)?;
    let senders = group.senders.iter().map(|sender| sender.parse()).collect::<Result<_, _>>().map_err(failure)?;
    let mut document = VALGroupDocument::new(id).with_members(&members);
    document.grp_desc = Some(group.description.clone());
    document.val_grp_conf = GroupConfiguration { senders, validating_as: None }.to_text();
    groups.create(&document).await.map_err(failure)?;
    Ok(())
}

/// Reads the file that `msgin5g <function> --config` would read, so that the lab runs what it shows.
fn read<T: DeserializeOwned>(directory: &Directory, name: &str) -> Result<T, Failure> {
    let path = directory.configuration_file(name);
    let wrong = |error: &dyn std::error::Error| Failure::new(format!("{}: {error}", path.display()));
    let text = fs::read_to_string(&path).map_err(|error| wrong(&error))?;
    toml::from_str(&text).map_err(|error| wrong(&error))
}

fn start_failure(name: &str, error: &dyn std::error::Error) -> Failure {
    let mut reasons = format!("{name}: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        reasons.push_str(&format!(": {error}"));
        source = error.source();
    }
    Failure::new(reasons).help("is another lab running with this --dir or --base-port? Stop it, or choose others")
}

fn failure(error: impl std::error::Error) -> Failure {
    Failure::new(error)
}
