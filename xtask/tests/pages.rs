//! Holds pages to the tree: each file and each test that `docs/reference/procedures.md` names is there, and each test of
//! `docs/internals/security.md`, `docs/reference/key-lifetime.md` and `docs/reference/interoperation.md`; and that each event,
//! metric and key is in the code that `docs/operate.md` names for a flood.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

const PROCEDURES: &str = "docs/reference/procedures.md";

/// Pages that name tests, and how many at least.
const PAGES: [(&str, usize); 4] = [
    (PROCEDURES, 100),
    ("docs/internals/security.md", 80),
    ("docs/reference/key-lifetime.md", 10),
    ("docs/reference/interoperation.md", 30),
];

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap()
}

/// What stands between backticks.
fn named(page: &str) -> Vec<&str> {
    page.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// Test names are sentences; what ends in `_total` is a metric.
fn is_test_name(name: &str) -> bool {
    name.matches('_').count() >= 3
        && !name.ends_with("_total")
        && name.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_')
}

fn rust_files(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                rust_files(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Every function under a test attribute, and every property.
fn tests_of(source: &str, into: &mut BTreeSet<String>) {
    let mut under_attribute = false;
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            under_attribute = true;
        } else if let Some((_, rest)) = line.split_once("fn ")
            && under_attribute
        {
            under_attribute = false;
            into.insert(rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect());
        }
    }
}

#[test]
fn every_file_that_the_page_names_is_there() {
    let page = read(PROCEDURES);
    let files: Vec<_> = named(&page).into_iter().filter(|name| name.ends_with(".rs")).collect();
    assert!(files.len() > 50, "{} files", files.len());
    for file in files {
        assert!(root().join("crates").join(file).is_file(), "{file}");
    }
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let mut sources = Vec::new();
    rust_files(&root().join("crates"), &mut sources);
    let mut tests = BTreeSet::new();
    for source in sources {
        tests_of(&fs::read_to_string(source).unwrap(), &mut tests);
    }
    for (page, least) in PAGES {
        let text = read(page);
        let names: Vec<_> = named(&text).into_iter().filter(|name| is_test_name(name)).collect();
        assert!(names.len() >= least, "{page}: {} tests", names.len());
        let missing: Vec<_> = names.into_iter().filter(|name| !tests.contains(*name)).collect();
        assert!(missing.is_empty(), "{page}: no such test: {missing:#?}");
    }
}

const OPERATE: &str = "docs/operate.md";

/// The rows under a heading, each its cells.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// Every source of the product in one text.
fn product() -> String {
    let mut sources = Vec::new();
    rust_files(&root().join("crates"), &mut sources);
    let product = sources.iter().filter(|source| source.components().any(|part| part.as_os_str() == "src"));
    product.map(|source| fs::read_to_string(source).unwrap()).collect()
}

/// Whether a metric's name is put together of what the code registers: a name, or a prefix and such a name.
fn is_registered(name: &str, code: &str) -> bool {
    let is_there = |text: &str| code.contains(&format!("\"{text}\""));
    let splits = name.match_indices('_').map(|(at, _)| (&name[..at], &name[at + 1..]));
    is_there(name) || splits.into_iter().any(|(prefix, rest)| is_there(prefix) && is_registered(rest, code))
}

#[test]
fn every_event_metric_and_limit_that_is_named_for_a_flood_is_in_the_code() {
    let (page, code, keys) = (read(OPERATE), product(), read("docs/reference/configuration.md"));
    let limits = read("docs/reference/limits.md");
    let rows = rows(&page, "Floods");
    assert!(rows.len() >= 9, "{} floods", rows.len());
    for row in rows {
        let [flood, events, metrics, limits_of, _] = row[..] else { panic!("{row:?}") };
        assert!(!named(events).is_empty() && !named(metrics).is_empty(), "{flood}");
        for event in named(events) {
            assert!(code.contains(&format!("\"{event}\"")), "{flood}: no event {event}");
        }
        for metric in named(metrics) {
            let (name, labels) = metric.split_once('{').unwrap_or((metric, ""));
            let name = name.strip_suffix("_total").unwrap_or(name);
            assert!(is_registered(name, &code), "{flood}: no metric {name}");
            for value in labels.split('"').skip(1).step_by(2) {
                assert!(code.contains(&format!("\"{value}\"")), "{flood}: no label {value}");
            }
        }
        for key in named(limits_of) {
            let (section, member) = key.rsplit_once('.').unwrap();
            assert!(code.contains(&format!("pub {member}: ")), "{flood}: no member {member}");
            let documented = [&keys, &limits].iter().any(|page| page.contains(&format!("| `{member}` |")));
            assert!(documented && keys.contains(&format!("| `{section}.*` |")), "{flood}: no key {key}");
        }
    }
}

#[test]
fn a_name_that_is_not_registered_is_noticed() {
    let code = r#"prefix("msgin5g"), register("https_devices")"#;
    assert!(is_registered("msgin5g_https_devices", code) && is_registered("https_devices", code));
    assert!(!is_registered("msgin5g_devices", code) && !is_registered("other_https_devices", code));
}
