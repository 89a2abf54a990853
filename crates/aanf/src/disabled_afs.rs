//! AFs for which the operator has disabled AKMA, by FQDN, durable: table `aanf_disabled_afs`, FQDN → [`State`]. All are
//! in memory, too: every request for K_AF looks.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use akma::Fqdn;
use serde::{Deserialize, Serialize};
use store::{Batch, Database, Table};
use tokio::sync::Mutex;

use crate::error::AanfError;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Whether notifications for all contexts have been queued.
    told: bool,
}

pub(crate) enum DisableAfOutcome {
    /// It is disabled, and was not before: its notifications are to be queued.
    Disabled,
    /// It was before.
    Same,
    /// The table is full.
    Full,
}

/// The table.
pub(crate) struct DisabledAfs {
    database: Database,
    table: Table,
    names: RwLock<BTreeMap<Fqdn, State>>,
    names_max: u64,
    /// Changes go one after the other.
    changes: Mutex<()>,
}

impl DisabledAfs {
    /// Opens the table. Blocks while it reads.
    pub(crate) fn open(database: &Database, names_max: u64) -> Result<Self, AanfError> {
        let table = database.table("aanf_disabled_afs")?;
        let mut names = BTreeMap::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = table.scan_prefix(b"", after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, value) in &page {
                let fqdn =
                    std::str::from_utf8(key).ok().and_then(|text| text.parse().ok()).ok_or(AanfError::Corrupt)?;
                names.insert(fqdn, serde_json::from_slice(value).map_err(|_| AanfError::Corrupt)?);
            }
        }
        Ok(Self { database: database.clone(), table, names: RwLock::new(names), names_max, changes: Mutex::new(()) })
    }

    /// Whether AFs of this name may have no K_AF.
    pub(crate) fn is_disabled(&self, fqdn: &Fqdn) -> bool {
        self.names.read().unwrap_or_else(PoisonError::into_inner).contains_key(fqdn)
    }

    /// The names whose notifications are not all queued yet.
    pub(crate) fn untold(&self) -> Vec<Fqdn> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.iter().filter(|(_, state)| !state.told).map(|(fqdn, _)| fqdn.clone()).collect()
    }

    /// On disk, and in force, when it returns.
    pub(crate) async fn disable(&self, fqdn: &Fqdn) -> Result<DisableAfOutcome, AanfError> {
        let _change = self.changes.lock().await;
        if self.is_disabled(fqdn) {
            return Ok(DisableAfOutcome::Same);
        }
        if self.len() >= self.names_max {
            return Ok(DisableAfOutcome::Full);
        }
        self.write(fqdn, State { told: false }).await?;
        Ok(DisableAfOutcome::Disabled)
    }

    /// `false` when it was enabled. On disk, and in force, when it returns.
    pub(crate) async fn enable(&self, fqdn: &Fqdn) -> Result<bool, AanfError> {
        let _change = self.changes.lock().await;
        if !self.is_disabled(fqdn) {
            return Ok(false);
        }
        self.database.commit(Batch::new().delete(&self.table, fqdn.as_str())).await?;
        self.names.write().unwrap_or_else(PoisonError::into_inner).remove(fqdn);
        Ok(true)
    }

    /// All its notifications are queued.
    pub(crate) async fn told(&self, fqdn: &Fqdn) -> Result<(), AanfError> {
        let _change = self.changes.lock().await;
        if self.is_disabled(fqdn) { self.write(fqdn, State { told: true }).await } else { Ok(()) }
    }

    async fn write(&self, fqdn: &Fqdn, state: State) -> Result<(), AanfError> {
        let value = serde_json::to_vec(&state).map_err(|_| AanfError::Corrupt)?;
        self.database.commit(Batch::new().put(&self.table, fqdn.as_str(), value)).await?;
        self.names.write().unwrap_or_else(PoisonError::into_inner).insert(fqdn.clone(), state);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.names.read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }
}

/// Names read at once at start.
const PAGE: usize = 4_096;
