//! The running functions against the documents that they serve, and against the OpenAPI files of 3GPP where those are
//! there.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what was tried is told to whoever runs it")]

mod common;

use std::path::{Path, PathBuf};

use common::{Lab, foreign_peer};

#[test]
fn every_function_does_what_the_document_that_it_serves_says_and_nothing_else() {
    let lab = Lab::start();
    print!("{}", foreign_peer("served.py", &[&lab.lab_json_path()]));
}

#[test]
fn requests_made_of_the_files_of_3gpp_are_answered_as_those_files_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let told = std::env::var_os("MSGIN5G_CONTRACTS").map(PathBuf::from);
    let is_wanted = std::env::var("NEXTEST_PROFILE").is_ok_and(|profile| profile == "contract");
    let is_told = told.is_some();
    let contracts = told.unwrap_or_else(|| root.join("../shared/contracts"));
    if !contracts.is_dir() {
        assert!(!is_told, "MSGIN5G_CONTRACTS names {}, which is no folder", contracts.display());
        assert!(!is_wanted, "no folder {} of OpenAPI files of 3GPP", contracts.display());
        println!("skipped: no folder of 3GPP OpenAPI files (MSGIN5G_CONTRACTS)");
        return;
    }
    let lab = Lab::start();
    // How many for each operation, and which.
    let given = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let (examples, seed) = (given("MSGIN5G_CONTRACT_EXAMPLES", "15"), given("MSGIN5G_CONTRACT_SEED", "538"));
    let arguments = [&lab.lab_json_path(), &contracts, Path::new(&examples), Path::new(&seed)];
    print!("{}", foreign_peer("generated.py", &arguments));
}
