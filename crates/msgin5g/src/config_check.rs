//! `msgin5g config check`: says whether a file is a right configuration, whether the files that it names can be used, and where not.

use std::{path::Path, process::ExitCode};

use serde::Serialize;

use crate::{
    cli::ConfigKind,
    function::{Aanf, Configuration, Exposure, Function, Server},
    outcome::{Failure, Output},
    overlay,
    profile::ProfileFile,
};

#[derive(Serialize)]
struct Checked {
    file: String,
    kind: &'static str,
    valid: bool,
}

pub(crate) fn check(file: &Path, kind: Option<ConfigKind>, output: Output) -> Result<ExitCode, Failure> {
    let kind = match kind {
        Some(kind) => kind,
        None => recognise(file)?,
    };
    let kind = match kind {
        ConfigKind::Server => check_function::<Server>(file)?,
        ConfigKind::Aanf => check_function::<Aanf>(file)?,
        ConfigKind::Configuration => check_function::<Configuration>(file)?,
        ConfigKind::Exposure => check_function::<Exposure>(file)?,
        ConfigKind::Client => {
            ProfileFile::load(file)?;
            "client"
        }
    };
    let checked = Checked { file: file.display().to_string(), kind, valid: true };
    output.print(&checked, |checked| format!("{}: valid {} configuration", checked.file, checked.kind))?;
    Ok(ExitCode::SUCCESS)
}

fn check_function<F: Function>(file: &Path) -> Result<&'static str, Failure> {
    let config = overlay::load::<F::Config>(file)?;
    let told = F::check(&config).and_then(|()| F::check_files(&config));
    told.map_err(|reason| Failure::new(format!("{}: {reason}", file.display())))?;
    Ok(F::NAME)
}

/// Tells whose file it is by keys that only one kind has.
fn recognise(file: &Path) -> Result<ConfigKind, Failure> {
    let table = overlay::read(file)?;
    let keys = overlay::top_level(&table);
    let has = |names: &[&str]| names.iter().any(|name| keys.contains(name));
    let kinds: Vec<ConfigKind> = [
        (ConfigKind::Client, has(&["ue_service_id", "keys"])),
        (ConfigKind::Server, has(&["akma", "certificates", "configuration_function", "api"])),
        (
            ConfigKind::Aanf,
            has(&["af", "kaf_lifetime_seconds", "storage_key", "udm", "routing_indicators", "notifications"]),
        ),
        (ConfigKind::Configuration, has(&["provisioner", "reader", "coap"])),
        (ConfigKind::Exposure, has(&["nef", "capif"])),
    ]
    .into_iter()
    .filter_map(|(kind, is)| is.then_some(kind))
    .collect();
    match kinds.as_slice() {
        [kind] => Ok(*kind),
        _ => Err(Failure::usage(format!("cannot tell whose configuration {} is", file.display()))
            .help("say it: --kind server, aanf, configuration, exposure or client")),
    }
}
