//! What we describe of our APIs against the OpenAPI files of 3GPP, where they are there.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the comparison is told to whoever runs it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use sbi::openapi::{Role, all, document};
use serde_json::{Map, json};

/// The folder of the 3GPP files: `MSGIN5G_CONTRACTS`, which has to be there if it is named, or `../shared/contracts` from the root of
/// the work tree, if that is there. `cargo xtask contract` has nothing else to do, and so fails without them.
fn contracts(root: &Path) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("MSGIN5G_CONTRACTS").map(PathBuf::from) {
        assert!(folder.is_dir(), "MSGIN5G_CONTRACTS names {}, which is no folder", folder.display());
        return Some(folder);
    }
    let folder = root.join("../shared/contracts");
    let is_wanted = std::env::var("NEXTEST_PROFILE").is_ok_and(|profile| profile == "contract");
    assert!(
        folder.is_dir() || !is_wanted,
        "no folder {} of OpenAPI files of 3GPP; MSGIN5G_CONTRACTS may name another",
        folder.display()
    );
    folder.is_dir().then_some(folder)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The one whose output is shown although it passes (`.config/nextest.toml`), since the others pass without the files, too.
#[test]
fn whether_the_files_of_3gpp_are_there_is_told() {
    let Some(folder) = contracts(&root()) else {
        println!(
            "SKIPPED: every comparison with the OpenAPI files of 3GPP, which are in no folder (MSGIN5G_CONTRACTS)"
        );
        return;
    };
    let is_file = |name: &str| name.starts_with("TS") && name.ends_with(".yaml");
    let entries = std::fs::read_dir(&folder).unwrap();
    let files = entries.filter(|entry| is_file(&entry.as_ref().unwrap().file_name().to_string_lossy())).count();
    assert!(files > 0, "no OpenAPI file of 3GPP (TS*.yaml) in {}", folder.display());
    println!("compared with the {files} OpenAPI files of 3GPP in {}", folder.display());
}

/// A comparison of our documents with the files, in a folder of its own; `None`, and said so, where there are none.
struct Comparison {
    root: PathBuf,
    contracts: PathBuf,
    folder: tempfile::TempDir,
}

impl Comparison {
    fn prepare() -> Option<Self> {
        let root = root();
        let Some(contracts) = contracts(&root) else {
            println!("skipped: no folder of 3GPP OpenAPI files (MSGIN5G_CONTRACTS)");
            return None;
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
        std::fs::write(folder.path().join("ours.json"), serde_json::to_vec(&apis).unwrap()).unwrap();
        Some(Self { root, contracts, folder })
    }

    fn page(&self) -> String {
        std::fs::read_to_string(self.root.join("docs/reference/contract-deviations.md")).unwrap()
    }

    /// Whether all held with `page` as the list of deviations, and what was printed.
    fn with_page(&self, page: &str) -> (bool, String) {
        let (ours, list) = (self.folder.path().join("ours.json"), self.folder.path().join("deviations.md"));
        std::fs::write(&list, page).unwrap();
        let compared = Command::new(self.root.join("target/tools/bin/python"))
            .arg("-B")
            .arg(self.root.join("crates/sbi/tests/contract/compare.py"))
            .args([&ours, &self.contracts, &list])
            .output()
            .expect("`cargo xtask setup` installs what the tests need");
        let printed = String::from_utf8_lossy(&compared.stdout);
        let errors = String::from_utf8_lossy(&compared.stderr);
        (compared.status.success(), format!("{printed}{errors}"))
    }
}

#[test]
fn every_deviation_from_the_files_of_3gpp_is_listed_with_its_reason_and_every_listed_one_is_there() {
    let Some(comparison) = Comparison::prepare() else { return };
    let (held, printed) = comparison.with_page(&comparison.page());
    println!("{printed}");
    assert!(held, "{printed}");
}

#[test]
fn a_deviation_that_is_not_listed_one_that_is_gone_and_a_status_without_a_reason_each_fail() {
    let Some(comparison) = Comparison::prepare() else { return };
    let page = comparison.page();
    let without = |part: &str| {
        let (rows, others): (Vec<_>, Vec<_>) = page.lines().partition(|line| line.contains(part));
        assert!(!rows.is_empty(), "no row has {part}");
        others.join("\n")
    };
    // One of each kind: a member, what is kept unseen, a file that is not there, statuses, and why they never come.
    for part in [
        "| not kept: `supportedFeatures` |",
        "| LocationInfo.userLocation | kept as it came",
        "| NFServiceVersion | kept as they came",
        "| AefLocation.geoArea | not compared",
        "| references | `TS29554_Npcf_BDTPolicyControl` is not there",
        "| TS29535_Naanf_AKMA | all operations | never answered: ",
        "| `411` | ",
    ] {
        let (held, printed) = comparison.with_page(&without(part));
        assert!(!held, "without {part}: {printed}");
    }
    for row in [
        "| TS29535_Naanf_AKMA | AkmaKeyInfo | not kept: `kAkma` | it is kept |",
        "| TS29535_Naanf_AKMA | POST /remove-context | never answered: `404` | it is |",
        "| `418` | it is a teapot |",
    ] {
        let (held, printed) = comparison.with_page(&format!("{page}{row}\n"));
        assert!(!held, "with {row}: {printed}");
    }
}
