//! Sessions that rest, over a restart: sealed at a graceful stop, gone on with by the next start.
//!
//! ```text
//! stop ──> each session that rests, whole, sealed (`transport::SealingKey`), and held ──> sessions.sealed, synced ──> let go
//!                                  │ under the key of this start                    └─ the disk is full: they rest on,
//!                                  │                                                   and are told that they end
//! start ─> 0. what can fail has not failed
//!          1. the directory is locked, the old key is read   2. a new one takes its place, synced
//!          3. the file is opened and removed, synced
//!          4. each form is opened with the old key, once ──> the session rests again where it stopped, unchecked
//! ```
//!
//! No nonce repeats, because no form is opened by two starts: a start makes the key of the one before impossible to find
//! before it opens anything, and removes the file. So a file that is put back, by hand or from a backup, opens nothing. Only
//! whoever puts back key and file together, which is the whole disk as it was, has forms opened again: after that, remove
//! the key. `kill -9` leaves no file, or one that was not finished and is not looked at: devices make new handshakes.
//!
//! A form is encrypted and authentic as a whole: keys, whose they are, what is remembered of earlier messages. One that was
//! changed, cut short, or of another key is told in the log and passed over.
//!
//! What was withdrawn between two starts was told to nobody. So a session goes on unchecked: the AAnF and the Configuration
//! Function are asked before anything is taken from its UE or delivered to it, and it ends if they do not agree.
//!
//! From its sealing on a session neither says nor takes anything, so that its form stays what it is, until the form is
//! stored; then it is gone without a word. Where none is stored, it goes on, and the stop tells its UE that it ends. No nonce
//! repeats by that, since no start reads a form that is not in its place; one that came there and was not synced is removed,
//! synced, or, if that fails, too, its session says nothing any more.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant, SystemTime};

use akma::{AKid, Gpsi, UeId};
use coap::DatagramConfig;
use message::{Address, UeServiceId};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use transport::{DatagramCarrier, DtlsListener, ProvenPeer, RestoredSession, SealingKey};
use zeroize::Zeroizing;

use crate::core::Core;
use crate::hibernation::{self, Sealing, Seat};
use crate::mailbox::Mailbox;
use crate::session::{Registered, Resting};
use crate::sessions::{Connection, Entry};

/// What is sealed with a session's keys, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Owner {
    pub(crate) a_kid: AKid,
    pub(crate) ue_id: Option<UeId>,
    pub(crate) gpsi: Option<Gpsi>,
    /// When K_AF expires, in seconds of the Unix epoch.
    pub(crate) expires_at: Option<u64>,
    pub(crate) ue_service_id: UeServiceId,
    pub(crate) source: IpAddr,
    /// When something last came from the UE, likewise.
    pub(crate) heard_at: u64,
}

/// Sessions that are sealed at most; others end with the stop. No more forms are read.
const SESSIONS_MAX: usize = 1 << 20;
/// Octets of a form at most. One that says to be longer ends the file.
const FORM_OCTETS_MAX: usize = 16_384;
const KEY: &str = "sessions.key";
const SESSIONS: &str = "sessions.sealed";
const LOCK: &str = "lock";
/// What the file begins with.
const FILE_FORM: &[u8; 8] = b"msgin5g2";
/// What it ends with: no form is that short.
const FILE_END: [u8; 2] = [0; 2];
/// The number of the start that seals with a key, and of the one that opens: each key has these two.
const SEALS: u32 = 1;
const OPENS: u32 = 2;

/// Where sessions are sealed, and the key of this start.
pub(crate) struct Vault {
    directory: PathBuf,
    key: SealingKey,
    /// Nobody else uses the directory while it is open.
    _lock: File,
}

/// What an earlier start has left.
pub(crate) struct Left {
    sessions: BufReader<File>,
    key: SealingKey,
}

/// How sessions that were sealed go on.
pub(crate) struct Restoring {
    pub(crate) core: Arc<Core>,
    pub(crate) listener: DtlsListener,
    pub(crate) coap: Arc<DatagramConfig>,
    pub(crate) prove_new_addresses: bool,
    pub(crate) path: Arc<str>,
}

impl Vault {
    /// Steps 1 to 3 of the module.
    ///
    /// # Errors
    /// The directory cannot be used, or another server uses it.
    pub(crate) fn open(directory: &Path) -> io::Result<(Self, Option<Left>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let key_path = directory.join(KEY);
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(directory.join(LOCK))?;
        lock.try_lock().map_err(io::Error::from)?;
        let is_ours =
            is_ours(directory, 0o022)? && is_ours(&key_path, 0o077)? && is_ours(&directory.join(SESSIONS), 0o077)?;
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
        let old = read_key(&key_path)?.filter(|_| is_ours);
        let mut octets = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *octets).map_err(io::Error::other)?;
        // It may have taken all the room there was.
        let unfinished = remove_unfinished(directory)?;
        put(directory, KEY, |file| file.write_all(&*octets)).map_err(|not_put| not_put.error)?;
        let sessions = open_once(directory, unfinished)?;
        let left = match (old, sessions) {
            (Some(old), Some(sessions)) => Some(Left { sessions: BufReader::new(sessions), key: key(&old, OPENS)? }),
            _ => None,
        };
        Ok((Self { directory: directory.to_owned(), key: key(&octets, SEALS)?, _lock: lock }, left))
    }

    /// Seals the sessions that rest, as many as it comes to before `until`, and stores them; how many. The others go on, to be
    /// ended.
    ///
    /// # Errors
    /// They cannot be stored, and rest as before.
    pub(crate) fn seal_all(&self, core: &Arc<Core>, until: Instant) -> io::Result<usize> {
        let mut sealing = Sealing::new(core, &self.key, until);
        let put = put(&self.directory, SESSIONS, |file| {
            let mut file = BufWriter::new(file);
            file.write_all(FILE_FORM)?;
            for form in sealing.by_ref().take(SESSIONS_MAX) {
                let octets = u16::try_from(form.len()).map_err(io::Error::other)?;
                file.write_all(&octets.to_be_bytes())?;
                file.write_all(&form)?;
            }
            file.write_all(&FILE_END)?;
            file.flush()
        });
        match put {
            Ok(()) => Ok(sealing.stored()),
            Err(NotPut { error, may_be_found }) => {
                // What a session still says is not to be said once more by the next start, with the same nonces.
                let gone = || remove(&self.directory.join(SESSIONS)).and_then(|_| sync(&self.directory));
                if may_be_found && gone().is_err() {
                    sealing.stored();
                }
                Err(error)
            }
        }
    }
}

impl Left {
    /// Has the sessions rest again whose UEs are registered and whose keys are good; how many.
    pub(crate) fn restore(mut self, restoring: &Restoring) -> usize {
        let (mut count, mut refused) = (0_usize, 0_usize);
        let whole = loop {
            match next_form(&mut self.sessions, count + refused) {
                Ok(Some(form)) => match restoring.restore(&self.key, &form) {
                    Ok(()) => count += 1,
                    Err(reason) => {
                        refused += 1;
                        tracing::debug!(reason, "a sealed DTLS session does not go on");
                    }
                },
                Ok(None) => break true,
                Err(error) => {
                    tracing::error!(%error, "the file of sealed DTLS sessions is damaged, its rest is passed over");
                    break false;
                }
            }
        };
        if refused > 0 || !whole {
            tracing::warn!(target: "security", sessions = count, refused, whole, "not all sealed DTLS sessions go on");
        }
        count
    }
}

impl Restoring {
    /// Opens the directory, has what is sealed there rest again, and has this start seal there; nothing that can fail may come
    /// after it, since it uses up what is sealed. How many sessions go on.
    ///
    /// # Errors
    /// Those of [`Vault::open`].
    pub(crate) async fn open(self, directory: PathBuf) -> io::Result<usize> {
        // There may be many to read and decrypt.
        let opened = spawn_blocking(move || {
            let (vault, left) = Vault::open(&directory)?;
            self.core.seals_with(vault);
            Ok(left.map_or(0, |left| left.restore(&self)))
        });
        opened.await.unwrap_or_else(|panicked| {
            tracing::error!(%panicked, "not all sealed DTLS sessions go on");
            Ok(0)
        })
    }

    fn restore(&self, key: &SealingKey, form: &[u8]) -> Result<(), &'static str> {
        let core = &self.core;
        let RestoredSession { link, attached, protocol, tls_version, cipher } =
            self.listener.restore(form, key).map_err(|_| "changed, of another key, or one too many")?;
        let (config, now) = (Arc::clone(&self.coap), StdInstant::now());
        let restored = DatagramCarrier::restored(link, config, self.prove_new_addresses, &attached, now);
        let (carrier, owner) = restored.ok().flatten().ok_or("of another version")?;
        let owner: Owner = serde_json::from_slice(owner).map_err(|_| "of another version")?;
        let expires_at = match owner.expires_at {
            Some(seconds) => {
                let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
                Some(at.filter(|at| *at > SystemTime::now()).ok_or("K_AF expired")?)
            }
            None => None,
        };
        let party = core.registry.find(&Address::ue(&owner.ue_service_id)).ok_or("not registered")?;
        let Owner { a_kid, ue_id, gpsi, .. } = owner;
        // Whether it is good still is asked in any case before anything is done for it.
        let asked_at = Instant::now();
        let peer = ProvenPeer { a_kid, ue_id, gpsi, expires_at, asked_at, protocol, tls_version, cipher };
        let mailbox = Arc::new(Mailbox::default());
        let seat = Seat::new(Entry::new(core, &mailbox, &peer), Connection::over_datagrams(core));
        let generation = party.attach_first(&mailbox).ok_or("registered anew")?;
        core.woken(&party.address);
        let waits = core.store.pending_count(&party.address) > 0;
        let registered = Registered { party, generation };
        let heard = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(owner.heard_at));
        let silent = heard.and_then(|heard| SystemTime::now().duration_since(heard).ok()).unwrap_or_default();
        let now = Instant::now();
        let heard_at = now.checked_sub(silent).unwrap_or(now);
        let (carrier, path) = (Box::new(carrier), Arc::clone(&self.path));
        let resting = Resting::restored(core, carrier, mailbox, peer, owner.source, path, registered, heard_at);
        if !waits {
            resting.needs_no_look();
        }
        hibernation::rest(core, resting, seat);
        Ok(())
    }
}

/// None after the last.
fn next_form(file: &mut impl Read, before: usize) -> io::Result<Option<Vec<u8>>> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    if before == 0 {
        let mut form = [0; FILE_FORM.len()];
        file.read_exact(&mut form)?;
        if form != *FILE_FORM {
            return Err(damaged());
        }
    }
    let mut octets = [0; 2];
    file.read_exact(&mut octets)?;
    if octets == FILE_END {
        return Ok(None);
    }
    let octets = usize::from(u16::from_be_bytes(octets));
    if octets > FORM_OCTETS_MAX || before >= SESSIONS_MAX {
        return Err(damaged());
    }
    let mut form = vec![0; octets];
    file.read_exact(&mut form)?;
    Ok(Some(form))
}

fn key(octets: &[u8; 32], start: u32) -> io::Result<SealingKey> {
    SealingKey::new(octets, start).map_err(io::Error::other)
}

/// Whether this process's user alone could have made what is there: with none of these bits. So if nothing is there.
fn is_ours(path: &Path, others: u32) -> io::Result<bool> {
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let is_ours = about.uid() == rustix::process::geteuid().as_raw() && about.mode() & others == 0;
    if !is_ours {
        tracing::warn!(target: "security", ?path, "others could have written sealed DTLS sessions, none goes on");
    }
    Ok(is_ours)
}

/// None if there is none, or none that can be one.
fn read_key(path: &Path) -> io::Result<Option<Zeroizing<[u8; 32]>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut octets = Zeroizing::new([0; 32]);
    let whole = file.read_exact(&mut *octets).is_ok() && file.read(&mut [0])? == 0;
    if !whole {
        tracing::warn!(target: "security", "the key of sealed DTLS sessions is damaged, none goes on");
    }
    Ok(whole.then_some(octets))
}

/// Opens the file of sessions, which nobody finds any more then. None if there is none.
fn open_once(directory: &Path, unfinished: bool) -> io::Result<Option<File>> {
    let path = directory.join(SESSIONS);
    let file = match File::open(&path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if remove(&path)? || unfinished {
        sync(directory)?;
    }
    Ok(file)
}

/// Removes what a stop did not finish; whether there was something.
fn remove_unfinished(directory: &Path) -> io::Result<bool> {
    let unfinished = remove(&unfinished(directory, SESSIONS))?;
    if unfinished {
        tracing::warn!("the last stop did not finish to seal DTLS sessions, their devices make new handshakes");
    }
    Ok(unfinished)
}

/// Whether there was one.
fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn unfinished(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.new"))
}

/// Why a file is not in its place for sure, and whether it may be found there all the same.
struct NotPut {
    error: io::Error,
    may_be_found: bool,
}

impl From<io::Error> for NotPut {
    fn from(error: io::Error) -> Self {
        Self { error, may_be_found: false }
    }
}

/// Puts a file in the place of the one of that name, whole and durable, to be read by its owner only.
fn put(directory: &Path, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), NotPut> {
    let unfinished = unfinished(directory, name);
    // Whoever made one there, and with which mode, it is not written to.
    remove(&unfinished)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = write(&mut file).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&unfinished, directory.join(name))) {
        // Its room is needed by others, when the disk is full.
        remove(&unfinished)?;
        return Err(error.into());
    }
    sync(directory).map_err(|error| NotPut { error, may_be_found: true })
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
