//! `msgin5g client status`: what the profile's state directory tells.

use std::{fs, io, path::Path, process::ExitCode};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    cli::ProfileArgs,
    outcome::{Failure, Output, chain},
    profile::{KEYS_FILE, Profile},
};

/// File of the state directory with the outcome of the last registration or de-registration.
const REGISTRATION_FILE: &str = "registration.json";
/// File that a running client has locked.
const LOCK_FILE: &str = "lock";

/// The last registration or de-registration.
#[derive(Debug, Serialize, Deserialize)]
struct Registration {
    registered: bool,
    at: String,
    server: String,
}

#[derive(Serialize)]
struct Shown {
    ue_service_id: String,
    server: String,
    /// The A-KID of the keys kept; null if there are none.
    a_kid: Option<String>,
    keys_obtained: Option<String>,
    /// Whether the last thing this profile did was to register; null if it never did.
    registered: Option<bool>,
    registration_changed: Option<String>,
    /// A client runs with this profile now.
    in_use: bool,
}

/// Notes the outcome of a registration or de-registration. Only for showing: a failure to write it matters to nobody.
pub(super) fn note(profile: &Profile, registered: bool) {
    let registration =
        Registration { registered, at: text(OffsetDateTime::now_utc()), server: profile.server.address.clone() };
    let written = serde_json::to_vec(&registration)
        .map_err(io::Error::other)
        .and_then(|json| fs::write(profile.state_dir.join(REGISTRATION_FILE), json));
    if let Err(error) = written {
        tracing::debug!(%error, "cannot note the registration");
    }
}

pub(super) fn show(arguments: &ProfileArgs, output: Output) -> Result<ExitCode, Failure> {
    let profile = Profile::load(&arguments.profile)?;
    let keys_file = profile.state_dir.join(KEYS_FILE);
    let keys = profile
        .key_source()?
        .stored()
        .map_err(|error| Failure::new(chain(&error)).help("`msgin5g client authenticate` replaces the keys"))?;
    let registration: Option<Registration> =
        fs::read(profile.state_dir.join(REGISTRATION_FILE)).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let shown = Shown {
        ue_service_id: profile.ue_service_id.to_string(),
        server: profile.server.address.clone(),
        keys_obtained: keys.as_ref().and_then(|_| modified(&keys_file)),
        a_kid: keys.map(|keys| keys.a_kid.to_string()),
        registered: registration.as_ref().map(|registration| registration.registered),
        registration_changed: registration.map(|registration| registration.at),
        in_use: is_locked(&profile.state_dir.join(LOCK_FILE)),
    };
    output.print(&shown, |shown| {
        let since = |when: &Option<String>| when.as_ref().map(|when| format!(" ({when})")).unwrap_or_default();
        format!(
            "UE Service ID  {}\nserver         {}\nkeys           {}{}\nregistration   {}{}\nclient         {}",
            shown.ue_service_id,
            shown.server,
            shown.a_kid.as_deref().unwrap_or("none"),
            since(&shown.keys_obtained),
            match shown.registered {
                Some(true) => "registered",
                Some(false) => "de-registered",
                None => "none",
            },
            since(&shown.registration_changed),
            if shown.in_use { "running" } else { "not running" },
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn modified(path: &Path) -> Option<String> {
    Some(text(fs::metadata(path).ok()?.modified().ok()?.into()))
}

fn text(when: OffsetDateTime) -> String {
    let seconds = when.replace_nanosecond(0).unwrap_or(when);
    seconds.format(&Rfc3339).unwrap_or_default()
}

fn is_locked(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}
