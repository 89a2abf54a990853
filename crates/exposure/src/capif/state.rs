//! What the core function knows: in memory to read, on disk to keep.
//!
//! One table, `capif`, holds a JSON record for each thing, under `<kind>/<identifier>`; `capif_logs` holds invocation logs under
//! their number. A change is decided on the state as it is, committed, synced, and only then seen: [`Registry::change`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use sbi::capif::events::EventSubscription;
use sbi::capif::identity::{CapifIdentity, Role};
use sbi::capif::invoker_management::ApiInvokerEnrolmentDetails;
use sbi::capif::logging::InvocationLog;
use sbi::capif::provider::ApiProviderEnrolmentDetails;
use sbi::capif::publish::{SecurityMethod, ServiceApiDescription};
use sbi::capif::security::SecurityInformation;
use sbi::{ProblemDetails, cause};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::{Batch, Database, StoreError, Table};
use tokio::sync::Mutex;

use super::service::Refusal;
use crate::error::ExposureError;

/// A provider domain and its functions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Provider {
    pub(crate) details: ApiProviderEnrolmentDetails,
    pub(crate) functions: Vec<Function>,
    /// Name of the credential that it came with. Of a record that has none it is empty, as no entry's name is.
    #[serde(default)]
    pub(crate) credential: String,
}

/// A function of a provider domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Function {
    pub(crate) id: String,
    pub(crate) role: FunctionRole,
    /// Serial number of the certificate that counts.
    pub(crate) serial: String,
}

/// What a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FunctionRole {
    Aef,
    Apf,
    Amf,
}

impl From<FunctionRole> for Role {
    fn from(role: FunctionRole) -> Self {
        match role {
            FunctionRole::Aef => Self::Aef,
            FunctionRole::Apf => Self::Apf,
            FunctionRole::Amf => Self::Amf,
        }
    }
}

/// An API invoker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Invoker {
    pub(crate) details: ApiInvokerEnrolmentDetails,
    /// Serial number of the certificate that counts.
    pub(crate) serial: String,
    /// Name of the credential that it came with.
    pub(crate) credential: String,
    /// Names of the APIs that it asked for; all if absent.
    pub(crate) wanted: Option<BTreeSet<String>>,
}

/// A published service API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Api {
    pub(crate) apf_id: String,
    pub(crate) description: ServiceApiDescription,
    /// The operator does not let its provider publish it any more: it is there for its publisher only.
    #[serde(default)]
    pub(crate) withheld: bool,
}

/// An invoker's security context.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SecurityContext {
    pub(crate) notification_destination: String,
    pub(crate) entries: Vec<Entry>,
}

/// One interface or AEF of a security context.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// As asked, and with the choice.
    pub(crate) agreed: SecurityInformation,
    pub(crate) aef_id: String,
    pub(crate) method: SecurityMethod,
    /// AEF_PSK in hex, with method PSK.
    pub(crate) aef_psk: Option<String>,
    /// Service APIs whose authorization was revoked.
    pub(crate) revoked: BTreeSet<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("aef_id", &self.aef_id).field("method", &self.method).finish_non_exhaustive()
    }
}

impl Entry {
    /// Whether it is about service API `api_id`.
    pub(crate) fn covers(&self, api_id: &str) -> bool {
        self.agreed.api_id.as_ref().is_none_or(|only| only == api_id) && !self.revoked.contains(api_id)
    }
}

/// Everything but the logs.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) providers: BTreeMap<String, Provider>,
    pub(crate) invokers: BTreeMap<String, Invoker>,
    pub(crate) apis: BTreeMap<String, Api>,
    pub(crate) contexts: BTreeMap<String, SecurityContext>,
    /// By `<subscriber>/<subscription>`.
    pub(crate) subscriptions: BTreeMap<String, EventSubscription>,
    /// Digests of credentials that were used.
    pub(crate) spent: BTreeSet<String>,
}

impl State {
    /// The provider domain and the function with `id`.
    pub(crate) fn function(&self, id: &str) -> Option<(&str, &Function)> {
        self.providers.iter().find_map(|(domain, provider)| {
            provider.functions.iter().find(|function| function.id == id).map(|function| (domain.as_str(), function))
        })
    }

    /// The provider domain of the function with `id`.
    pub(crate) fn provider_of(&self, id: &str) -> Option<(&str, &Provider)> {
        let has = |provider: &Provider| provider.functions.iter().any(|function| function.id == id);
        self.providers.iter().find(|(_, provider)| has(provider)).map(|(domain, provider)| (domain.as_str(), provider))
    }

    /// Whether the holder of this certificate is registered or onboarded, and the certificate is the one that counts.
    pub(crate) fn knows(&self, identity: &CapifIdentity) -> bool {
        match identity.role {
            Role::Invoker => self.invokers.get(&identity.id).is_some_and(|invoker| invoker.serial == identity.serial),
            Role::Core => false,
            role => self
                .function(&identity.id)
                .is_some_and(|(_, function)| Role::from(function.role) == role && function.serial == identity.serial),
        }
    }

    /// The service APIs that are active at `aef_id`.
    pub(crate) fn apis_at<'a>(&'a self, aef_id: &'a str) -> impl Iterator<Item = (&'a str, &'a Api)> {
        self.apis.iter().filter(move |(_, api)| api.is_at(aef_id)).map(|(id, api)| (id.as_str(), api))
    }
}

impl Api {
    pub(crate) fn is_at(&self, aef_id: &str) -> bool {
        !self.withheld
            && self.description.is_active_at(aef_id)
            && self.description.profiles().iter().any(|profile| profile.aef_id == aef_id)
    }
}

/// One thing that is to be another, or no more.
#[derive(Debug)]
pub(crate) enum Change {
    Provider(String, Option<Provider>),
    Invoker(String, Option<Invoker>),
    Api(String, Option<Api>),
    Context(String, Option<SecurityContext>),
    Subscription(String, Option<EventSubscription>),
    Spent(String),
}

impl Change {
    fn write(&self, batch: Batch, table: &Table) -> Result<Batch, Refusal> {
        fn value<T: Serialize>(value: Option<&T>) -> Result<Option<Vec<u8>>, Refusal> {
            value.map(serde_json::to_vec).transpose().map_err(|_| ProblemDetails::internal().into())
        }
        let (kind, id, value) = match self {
            Self::Provider(id, provider) => (PROVIDER, id, value(provider.as_ref())?),
            Self::Invoker(id, invoker) => (INVOKER, id, value(invoker.as_ref())?),
            Self::Api(id, api) => (API, id, value(api.as_ref())?),
            Self::Context(id, context) => (CONTEXT, id, value(context.as_ref())?),
            Self::Subscription(id, subscription) => (SUBSCRIPTION, id, value(subscription.as_ref())?),
            Self::Spent(digest) => (SPENT, digest, Some(b"{}".to_vec())),
        };
        let key = format!("{kind}/{id}");
        Ok(match value {
            Some(value) => batch.put(table, key, value),
            None => batch.delete(table, key),
        })
    }

    fn apply(self, state: &mut State) {
        match self {
            Self::Provider(id, value) => set(&mut state.providers, id, value),
            Self::Invoker(id, value) => set(&mut state.invokers, id, value),
            Self::Api(id, value) => set(&mut state.apis, id, value),
            Self::Context(id, value) => set(&mut state.contexts, id, value),
            Self::Subscription(id, value) => set(&mut state.subscriptions, id, value),
            Self::Spent(digest) => {
                state.spent.insert(digest);
            }
        }
    }
}

fn set<T>(map: &mut BTreeMap<String, T>, id: String, value: Option<T>) {
    match value {
        Some(value) => map.insert(id, value),
        None => map.remove(&id),
    };
}

/// The state and its tables.
pub(crate) struct Registry {
    database: Database,
    table: Table,
    logs: Table,
    next_log: AtomicU64,
    state: RwLock<State>,
    /// Read, decide, write is one step.
    writer: Mutex<()>,
}

impl Registry {
    /// Opens the tables and reads the state. Blocks.
    pub(crate) fn open(database: Database) -> Result<Self, ExposureError> {
        let (table, logs) = (database.table("capif")?, database.table("capif_logs")?);
        let mut state = State::default();
        each(&table, |key, value| read_record(&mut state, key, value))?;
        let mut next_log = 0;
        each(&logs, |key, _| {
            next_log = log_number(key).ok_or(ExposureError::Corrupt)?.saturating_add(1);
            Ok(())
        })?;
        let next_log = AtomicU64::new(next_log);
        Ok(Self { database, table, logs, next_log, state: RwLock::new(state), writer: Mutex::new(()) })
    }

    /// The database's metrics.
    pub(crate) fn store_metrics(&self) -> &store::StoreMetrics {
        self.database.metrics()
    }

    /// The state as it is. Not to be held over a wait.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on the state as it is which changes to make, and makes them: on disk when this returns.
    pub(crate) async fn change<T>(
        &self,
        decide: impl FnOnce(&State) -> Result<(T, Vec<Change>), Refusal>,
    ) -> Result<T, Refusal> {
        let _alone = self.writer.lock().await;
        let (outcome, changes) = decide(&self.read())?;
        let mut batch = Batch::new();
        for change in &changes {
            batch = change.write(batch, &self.table)?;
        }
        self.database.commit(batch).await.map_err(|error| storing(&error))?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            change.apply(&mut state);
        }
        Ok(outcome)
    }

    /// [`Registry::change`] in memory alone: for what must hold although the disk does not take it. The next start decides anew.
    pub(crate) async fn change_in_memory<T>(&self, decide: impl FnOnce(&State) -> (T, Vec<Change>)) -> T {
        let _alone = self.writer.lock().await;
        let (outcome, changes) = decide(&self.read());
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            change.apply(&mut state);
        }
        outcome
    }

    /// Keeps a log; gives its number. With `max` kept, the oldest goes.
    pub(crate) async fn keep_log(&self, log: &InvocationLog, max: u64) -> Result<u64, Refusal> {
        let number = self.next_log.fetch_add(1, Ordering::Relaxed);
        let value = serde_json::to_vec(log).map_err(|_| ProblemDetails::internal())?;
        let mut batch = Batch::new().put(&self.logs, number.to_be_bytes(), value);
        if let Some(oldest) = number.checked_sub(max) {
            batch = batch.delete(&self.logs, oldest.to_be_bytes());
        }
        self.database.commit(batch).await.map_err(|error| storing(&error))?;
        Ok(number)
    }

    /// The logs that `find` finds, the newest first, `max` at most. Blocks.
    pub(crate) fn find_logs(
        &self,
        max: usize,
        find: impl Fn(&InvocationLog) -> Option<InvocationLog>,
    ) -> Result<Vec<InvocationLog>, ExposureError> {
        let mut found = std::collections::VecDeque::new();
        each(&self.logs, |_, value| {
            if let Some(log) = find(&serde_json::from_slice(value).map_err(|_| ExposureError::Corrupt)?) {
                found.push_front(log);
                found.truncate(max);
            }
            Ok(())
        })?;
        Ok(found.into())
    }
}

fn storing(error: &StoreError) -> Refusal {
    tracing::error!(%error, "the core function's state cannot be written");
    match error {
        StoreError::Overloaded => ProblemDetails::overloaded(1).into(),
        StoreError::DiskFull => ProblemDetails::new(http::StatusCode::INTERNAL_SERVER_ERROR)
            .with_cause(cause::INSUFFICIENT_RESOURCES)
            .into(),
        _ => ProblemDetails::internal().into(),
    }
}

fn read_record(state: &mut State, key: &[u8], value: &[u8]) -> Result<(), ExposureError> {
    fn record<T: DeserializeOwned>(value: &[u8]) -> Result<T, ExposureError> {
        serde_json::from_slice(value).map_err(|_| ExposureError::Corrupt)
    }
    let key = std::str::from_utf8(key).map_err(|_| ExposureError::Corrupt)?;
    let (kind, id) = key.split_once('/').ok_or(ExposureError::Corrupt)?;
    let id = id.to_owned();
    match kind {
        PROVIDER => drop(state.providers.insert(id, record(value)?)),
        INVOKER => drop(state.invokers.insert(id, record(value)?)),
        API => drop(state.apis.insert(id, record(value)?)),
        CONTEXT => drop(state.contexts.insert(id, record(value)?)),
        SUBSCRIPTION => drop(state.subscriptions.insert(id, record(value)?)),
        SPENT => drop(state.spent.insert(id)),
        _ => return Err(ExposureError::Corrupt),
    }
    Ok(())
}

fn each(table: &Table, mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), ExposureError>) -> Result<(), ExposureError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = table.scan_prefix(b"", after.as_deref(), PAGE)?;
        for (key, value) in &page {
            visit(key, value)?;
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => after = Some(last.clone()),
            _ => return Ok(()),
        }
    }
}

fn log_number(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

const PROVIDER: &str = "provider";
const INVOKER: &str = "invoker";
const API: &str = "api";
const CONTEXT: &str = "context";
const SUBSCRIPTION: &str = "subscription";
const SPENT: &str = "spent";
const PAGE: usize = 256;
