//! What we describe of our APIs against the OpenAPI files of 3GPP, where they are there.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the comparison is told to whoever runs it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use sbi::openapi::{Role, all, document};
use serde_json::{Map, json};

/// The folder of the 3GPP files: `MSGIN5G_CONTRACTS`, or `../shared/contracts` from the root of the work tree.
fn contracts(root: &Path) -> Option<PathBuf> {
    let folder = std::env::var_os("MSGIN5G_CONTRACTS").map_or_else(|| root.join("../shared/contracts"), PathBuf::from);
    folder.is_dir().then_some(folder)
}

#[test]
fn every_deviation_from_the_files_of_3gpp_is_listed_with_its_reason_and_every_listed_one_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let Some(contracts) = contracts(&root) else {
        println!("skipped: no folder of 3GPP OpenAPI files (MSGIN5G_CONTRACTS)");
        return;
    };
    let apis: Map<_, _> = all()
        .into_iter()
        .map(|api| {
            let role = if api.role == Role::Producer { "producer" } else { "consumer" };
            let described = document(std::slice::from_ref(&api));
            (api.name.to_owned(), json!({"file": api.file, "path": api.path, "role": role, "document": described}))
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let ours = folder.path().join("ours.json");
    std::fs::write(&ours, serde_json::to_vec(&apis).unwrap()).unwrap();
    let compared = Command::new(root.join("target/tools/bin/python"))
        .arg("-B")
        .arg(root.join("crates/sbi/tests/contract/compare.py"))
        .args([&ours, &contracts, &root.join("docs/reference/contract-deviations.md")])
        .output()
        .expect("`cargo xtask setup` installs what the tests need");
    let printed = String::from_utf8_lossy(&compared.stdout);
    println!("{printed}");
    assert!(compared.status.success(), "{printed}\n{}", String::from_utf8_lossy(&compared.stderr));
}
