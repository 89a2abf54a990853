//! Sessions that rest, over a restart: sealed at a graceful stop, gone on with by the next start.
//!
//! ```text
//! stop ──> each session that rests: DTLS keys sealed (`transport::SealingKey`) ──> sessions.sealed, synced
//!                                        │ under the key of this start
//! start ─> 1. the old key is read   2. a new one takes its place, synced   3. the file is read and removed, synced
//!          4. each form is opened with the old key, its counters advanced ──> the session rests again
//! ```
//!
//! No nonce repeats, because no form is opened by two starts: a start makes the key of the one before impossible to find
//! before it opens anything, and removes the file. So a file that is put back, by hand or from a backup, opens nothing. Only
//! whoever puts back key and file together, which is the whole disk as it was, has forms opened again: after that, remove
//! the key. `kill -9` leaves no file, and devices make new handshakes.
//!
//! What is sealed are the keys. The rest of a record is what the store says of a registration, too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use akma::{AKid, Gpsi, UeId};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use message::{Address, UeServiceId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use transport::{Carrier, DtlsListener, ProvenPeer, RestoredSession, SealingKey};
use zeroize::Zeroizing;

use crate::core::Core;
use crate::hibernation::{self, Seat};
use crate::mailbox::Mailbox;
use crate::session::{Arrived, Registered, Resting, Session};
use crate::sessions::{Connection, Entry};
use crate::sync::lock;

/// A session that rests, on disk: one line of JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SealedSession {
    /// The DTLS session, sealed; base64.
    pub(crate) form: String,
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

/// Longest line that is read; none that is written is longer.
const LINE_OCTETS_MAX: usize = 4_096;
/// A restored session is re-validated within this: what was withdrawn during the restart was told to nobody.
pub(crate) const REVALIDATE_WITHIN: Duration = Duration::from_secs(60);
const KEY: &str = "sessions.key";
const SESSIONS: &str = "sessions.sealed";
/// The number of the start that seals with a key, and of the one that opens: each key has these two.
const SEALS: u32 = 1;
const OPENS: u32 = 2;

/// Where sessions are sealed, and the key of this start.
pub(crate) struct Vault {
    directory: PathBuf,
    key: SealingKey,
}

/// What an earlier start has left.
pub(crate) struct Left {
    sessions: Vec<SealedSession>,
    key: SealingKey,
}

impl Vault {
    /// Steps 1 to 3 of the module.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub(crate) fn open(directory: &Path) -> io::Result<(Self, Option<Left>)> {
        fs::create_dir_all(directory)?;
        let old = read_key(&directory.join(KEY))?;
        let mut octets = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *octets).map_err(io::Error::other)?;
        put(directory, KEY, |file| file.write_all(&*octets))?;
        let path = directory.join(SESSIONS);
        let sessions = read_sessions(&path)?;
        if sessions.is_some() {
            fs::remove_file(&path)?;
            File::open(directory)?.sync_all()?;
        }
        let left = match (old, sessions) {
            (Some(old), Some(sessions)) => Some(Left { sessions, key: key(&old, OPENS)? }),
            _ => None,
        };
        Ok((Self { directory: directory.to_owned(), key: key(&octets, SEALS)? }, left))
    }

    /// Seals every session that rests, and stores them; how many. Those that cannot be sealed go on, to be ended.
    ///
    /// # Errors
    /// They cannot be stored: their devices make new handshakes.
    pub(crate) fn seal_all(&self, core: &Arc<Core>) -> io::Result<usize> {
        let mut count = 0;
        put(&self.directory, SESSIONS, |file| {
            let mut file = BufWriter::new(file);
            for sealed in hibernation::seal_all(core, &self.key) {
                serde_json::to_writer(&mut file, &sealed)?;
                file.write_all(b"\n")?;
                count += 1;
            }
            file.flush()
        })?;
        Ok(count)
    }
}

impl Left {
    /// Has the sessions rest again whose UEs are registered and whose keys are good; how many.
    pub(crate) fn restore(
        self,
        core: &Arc<Core>,
        listener: &DtlsListener,
        carrier: impl Fn(RestoredSession) -> Option<Box<dyn Carrier>>,
        path: &Arc<str>,
    ) -> usize {
        let mut count = 0;
        for session in self.sessions {
            count += usize::from(restore(core, listener, &self.key, session, &carrier, path).is_some());
        }
        count
    }
}

fn restore(
    core: &Arc<Core>,
    listener: &DtlsListener,
    key: &SealingKey,
    session: SealedSession,
    carrier: &impl Fn(RestoredSession) -> Option<Box<dyn Carrier>>,
    path: &Arc<str>,
) -> Option<()> {
    let expires_at = session.expires_at.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    if expires_at.is_some_and(|at| at <= SystemTime::now()) {
        return None;
    }
    let party = core.registry.find(&Address::ue(&session.ue_service_id))?;
    let form = STANDARD_NO_PAD.decode(&session.form).ok()?;
    let restored = listener.restore(&form, key).ok()?;
    let peer = ProvenPeer {
        a_kid: session.a_kid,
        ue_id: session.ue_id,
        gpsi: session.gpsi,
        expires_at,
        protocol: restored.protocol,
        tls_version: restored.tls_version,
        cipher: restored.cipher,
    };
    let carrier = carrier(restored)?;
    let mailbox = Arc::new(Mailbox::default());
    let seat = Seat::new(Entry::new(core, &mailbox, &peer), Connection::over_datagrams(core));
    let profile = lock(&party.state).profile.as_deref().cloned();
    let generation = party.attach(&mailbox, profile)?;
    core.woken(&party.address);
    let registered = Registered { party, generation };
    let silent = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(session.heard_at));
    let now = Instant::now();
    let heard_at = now.checked_sub(silent.unwrap_or_default()).unwrap_or(now);
    let resting =
        Resting::restored(core, carrier, mailbox, peer, session.source, Arc::clone(path), registered, heard_at);
    let session = Session::resume(Arc::clone(core), resting, Arrived::Letter);
    core.tasks.spawn(hibernation::live(Arc::clone(core), session, seat));
    Some(())
}

fn key(octets: &[u8; 32], start: u32) -> io::Result<SealingKey> {
    SealingKey::new(octets, start).map_err(io::Error::other)
}

/// None if there is none, or none that can be one.
fn read_key(path: &Path) -> io::Result<Option<Zeroizing<[u8; 32]>>> {
    match fs::read(path).map(Zeroizing::new) {
        Ok(octets) => Ok(octets.as_slice().try_into().ok().map(Zeroizing::new)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lines that are none are passed over; none if there is no file.
fn read_sessions(path: &Path) -> io::Result<Option<Vec<SealedSession>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut sessions = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        if line.len() <= LINE_OCTETS_MAX
            && let Ok(session) = serde_json::from_slice(&line)
        {
            sessions.push(session);
        }
    }
    Ok(Some(sessions))
}

/// Puts a file in the place of the one of that name, whole and durable, to be read by its owner only.
fn put(directory: &Path, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let unfinished = directory.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    write(&mut file)?;
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(name))?;
    File::open(directory)?.sync_all()
}
