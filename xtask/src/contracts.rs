//! Where the OpenAPI files of 3GPP are, which are not part of this project.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::run::{Failure, root};

/// The folder that `MSGIN5G_CONTRACTS` names, else `../shared/contracts` beside the work tree.
///
/// # Errors
/// There is no such folder, or no file of 3GPP in it.
pub(crate) fn folder() -> Result<PathBuf, Failure> {
    folder_of(std::env::var_os(VARIABLE), &root())
}

fn folder_of(told: Option<OsString>, root: &Path) -> Result<PathBuf, Failure> {
    let is_told = told.is_some();
    let folder = told.map_or_else(|| root.join("../shared/contracts"), PathBuf::from);
    let holds_files = std::fs::read_dir(&folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().starts_with("TS") && Path::new(&name).extension().is_some_and(|end| end == "yaml")
        })
    });
    if holds_files {
        // The tests run elsewhere.
        return folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()));
    }
    let wanted = format!("no OpenAPI files of 3GPP (TS*.yaml) in {}", folder.display());
    Err(if is_told {
        format!("{wanted}, which {VARIABLE} names")
    } else {
        format!("{wanted}; {VARIABLE} may name another folder")
    })
}

/// Names the folder, to the tests, too.
pub(crate) const VARIABLE: &str = "MSGIN5G_CONTRACTS";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// An empty folder of this test's own.
    fn empty(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("msgin5g-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_folder_that_is_named_and_not_there_or_has_no_files_is_a_failure_that_names_it() {
        let folder = empty("no-contracts");
        for wrong in [folder.join("not-there"), folder.clone()] {
            let failure = folder_of(Some(wrong.clone().into_os_string()), &folder).unwrap_err();
            assert!(failure.contains(wrong.to_str().unwrap()) && failure.contains(VARIABLE), "{failure}");
        }
        let failure = folder_of(None, &folder.join("tree")).unwrap_err();
        assert!(failure.contains("shared/contracts"), "{failure}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_folder_that_is_named_goes_before_the_one_beside_the_work_tree() {
        let folder = empty("contracts");
        let beside = folder.join("shared/contracts");
        std::fs::create_dir_all(&beside).unwrap();
        std::fs::create_dir_all(folder.join("tree")).unwrap();
        for each in [&folder, &beside] {
            std::fs::write(each.join("TS29535_Naanf_AKMA.yaml"), "openapi: 3.0.0").unwrap();
        }
        assert_eq!(
            folder_of(Some(folder.clone().into_os_string()), &folder.join("tree")).unwrap(),
            folder.canonicalize().unwrap()
        );
        assert_eq!(folder_of(None, &folder.join("tree")).unwrap(), beside.canonicalize().unwrap());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
