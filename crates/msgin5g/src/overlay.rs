//! Reads configuration files, and lets environment variables override any key of them.
//!
//! `MSGIN5G_SECTION__KEY` is key `key` of `[section]`; two underscores separate levels, and a number names an element of
//! an array. The value is read as TOML (`8`, `true`, `["a"]`, `{ root = "https://..." }`), or as text where the key wants
//! text.
//!
//! One environment may serve several functions: a variable for a key that only another of them has is left to that one.
//! A key that none has is an error where this function has the section, and else a warning.

use std::{collections::BTreeSet, path::Path};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::{outcome::Failure, profile::ProfileFile};

/// What every variable that overrides a key begins with.
const PREFIX: &str = "MSGIN5G_";
/// What separates levels in a variable's name.
const SEPARATOR: &str = "__";

/// Reads a configuration file and overlays the process's environment.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let table = read(path)?;
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        Some((name, value.to_string_lossy().into_owned()))
    });
    overlaid(table, variables).map_err(|fault| fault.in_file(path))
}

/// Reads a file that no variable overrides: one beside a profile, whose keys could be mistaken for the profile's.
pub(crate) fn load_alone<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    deserialize(Value::Table(read(path)?)).map_err(|fault| fault.in_file(path))
}

/// Reads a file as TOML.
pub(crate) fn read(path: &Path) -> Result<Table, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("cannot read {}: {error}", path.display())).help("give the path of a configuration file")
    })?;
    // The error's own text quotes the line, which may hold a key.
    text.parse::<Table>().map_err(|error| {
        let place = error.span().map(|span| position(&text, span.start)).unwrap_or_default();
        Failure::new(format!("{}{place}: {}", path.display(), error.message()))
    })
}

fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
    format!(" (line {line}, column {column})")
}

/// A key that is not as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where, as `section.key`; empty for the file as a whole.
    key: String,
    /// What is wrong.
    reason: String,
    /// The variable that set it.
    variable: Option<String>,
}

impl Fault {
    fn in_file(&self, path: &Path) -> Failure {
        let source = match &self.variable {
            Some(variable) => format!("environment variable {variable}"),
            None => path.display().to_string(),
        };
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        Failure::new(format!("{source}: {key}{}", self.reason))
            .help("docs/reference/configuration.md names every key; `msgin5g config check FILE` checks a file")
    }
}

/// One override.
struct Variable {
    name: String,
    keys: Vec<String>,
    value: String,
    /// Read as text although it could be read as another type.
    as_text: bool,
}

/// Overlays variables on a table and reads the whole into its type.
fn overlaid<T: DeserializeOwned>(
    table: Table,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<T, Fault> {
    let mut variables: Vec<Variable> = environment.filter_map(|(name, value)| variable(name, value)).collect();
    // The outer before the inner, and always in the same order.
    variables.sort_by(|left, right| left.keys.cmp(&right.keys));
    loop {
        let mut whole = Value::Table(table.clone());
        for variable in &variables {
            let value = if variable.as_text { Value::String(variable.value.clone()) } else { typed(&variable.value) };
            set(&mut whole, &variable.keys, value).map_err(|reason| Fault {
                key: variable.keys.join("."),
                reason: reason.to_owned(),
                variable: Some(variable.name.clone()),
            })?;
        }
        let fault = match deserialize(whole) {
            Ok(config) => return Ok(config),
            Err(fault) => fault,
        };
        let Some(index) = variables.iter().position(|variable| variable.is_about(&fault)) else {
            return Err(fault);
        };
        match variables.get_mut(index) {
            // Text that looks like a number, for a key that wants text.
            Some(variable) if !variable.as_text && !matches!(typed(&variable.value), Value::String(_)) => {
                variable.as_text = true;
            }
            Some(variable) if fault.is_unknown_key() && variable.is_for_others(&fault) => {
                drop(variables.remove(index));
            }
            Some(variable) => return Err(Fault { variable: Some(variable.name.clone()), ..fault }),
            None => return Err(fault),
        }
    }
}

fn variable(name: String, value: String) -> Option<Variable> {
    let keys: Vec<String> = name.strip_prefix(PREFIX)?.split(SEPARATOR).map(str::to_ascii_lowercase).collect();
    if keys.iter().any(String::is_empty) {
        return None;
    }
    Some(Variable { name, keys, value, as_text: false })
}

impl Variable {
    fn is_about(&self, fault: &Fault) -> bool {
        let key = self.keys.join(".");
        fault.key == key
            || fault.key.strip_prefix(&key).is_some_and(|rest| rest.starts_with(['.', '[']))
            || fault.unknown_key().is_some_and(|unknown| within(&key, &unknown))
    }

    /// Whether this variable, of a key that `fault` says this file cannot have, is none of this function's business.
    fn is_for_others(&self, fault: &Fault) -> bool {
        let [section, _, ..] = self.keys.as_slice() else {
            // Programs have variables of their own, such as MSGIN5G_PROFILE: one that names no section may be such.
            return true;
        };
        if SCHEMAS.iter().any(|knows| knows(&self.keys)) {
            return true;
        }
        let is_section_unknown = fault.unknown_key().is_some_and(|unknown| unknown == *section);
        if is_section_unknown && !SCHEMAS.iter().any(|knows| knows(std::slice::from_ref(section))) {
            tracing::warn!(variable = %self.name, "no function has this section; the variable does nothing");
        }
        is_section_unknown
    }
}

/// Whether `key` is `section` or in it.
fn within(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// For each kind of file, whether it may have a key.
const SCHEMAS: [fn(&[String]) -> bool; 5] = [
    knows::<server::Config>,
    knows::<aanf::Config>,
    knows::<configuration::Config>,
    knows::<exposure::Config>,
    knows::<ProfileFile>,
];

/// Whether a file of this type may have the key: whatever else it holds against a file of nothing but it, it is not that.
fn knows<T: DeserializeOwned>(keys: &[String]) -> bool {
    let mut file = Value::Table(Table::new());
    if set(&mut file, keys, Value::Table(Table::new())).is_err() {
        return false;
    }
    let key = keys.join(".");
    let unknown = deserialize::<T>(file).err().and_then(|fault| fault.unknown_key());
    !unknown.is_some_and(|unknown| within(&key, &unknown))
}

impl Fault {
    fn is_unknown_key(&self) -> bool {
        self.reason.starts_with("unknown field")
    }

    /// The key that nobody knows, in full.
    fn unknown_key(&self) -> Option<String> {
        let name = self.reason.strip_prefix("unknown field `")?.split('`').next()?;
        let last = self.key.rsplit('.').next().unwrap_or_default();
        // Depending on where it was found, the path ends with the key or with its section.
        if last == name || self.key.is_empty() {
            Some(if self.key.is_empty() { name.to_owned() } else { self.key.clone() })
        } else {
            Some(format!("{}.{name}", self.key))
        }
    }
}

/// The value as TOML, or else as text.
fn typed(value: &str) -> Value {
    let document = format!("value = {value}");
    match document.parse::<Table>() {
        // A value with a line break in it could smuggle in another key.
        Ok(mut table) if table.len() == 1 => table.remove("value").unwrap_or_else(|| Value::String(value.to_owned())),
        _ => Value::String(value.to_owned()),
    }
}

fn set(target: &mut Value, keys: &[String], value: Value) -> Result<(), &'static str> {
    let Some((key, rest)) = keys.split_first() else {
        *target = value;
        return Ok(());
    };
    match target {
        Value::Table(table) => {
            let entry = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
            set(entry, rest, value)
        }
        Value::Array(array) => {
            let index: usize = key.parse().map_err(|_| "is an array: name an element by its number, from 0")?;
            if index == array.len() {
                array.push(Value::Table(Table::new()));
            }
            set(array.get_mut(index).ok_or("has no such element, and more than one is missing before it")?, rest, value)
        }
        _ => Err("is not a section"),
    }
}

fn deserialize<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let key = if path == "." { String::new() } else { path };
        // The inner error repeats the path in lines of its own.
        let text = error.into_inner().to_string();
        let reason = text.lines().next().unwrap_or_default().to_owned();
        Fault { key, reason, variable: None }
    })
}

/// The names of a file's top-level keys.
pub(crate) fn top_level(table: &Table) -> BTreeSet<&str> {
    table.keys().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::path::PathBuf;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        listen: Option<std::net::SocketAddr>,
        #[serde(default)]
        limits: Limits,
        #[serde(default)]
        peer: Vec<Peer>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Limits {
        connections_max: usize,
        name: String,
        strict: bool,
        paths: Vec<PathBuf>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Peer {
        dns_name: String,
    }

    fn read(file: &str, variables: &[(&str, &str)]) -> Result<Sample, Fault> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        overlaid(file.parse().unwrap(), variables)
    }

    #[test]
    fn a_variable_overrides_the_file_with_the_type_of_the_key() {
        let sample = read(
            "listen = \"127.0.0.1:1\"\n[limits]\nconnections_max = 1\n",
            &[
                ("MSGIN5G_LISTEN", "127.0.0.1:2"),
                ("MSGIN5G_LIMITS__CONNECTIONS_MAX", "8"),
                ("MSGIN5G_LIMITS__STRICT", "true"),
                ("MSGIN5G_LIMITS__NAME", "meter 7"),
                ("MSGIN5G_LIMITS__PATHS", "[\"/a\", \"/b\"]"),
            ],
        )
        .unwrap();
        assert_eq!(sample.listen, Some("127.0.0.1:2".parse().unwrap()));
        assert_eq!(sample.limits.connections_max, 8);
        assert!(sample.limits.strict);
        assert_eq!(sample.limits.name, "meter 7");
        assert_eq!(sample.limits.paths, [PathBuf::from("/a"), PathBuf::from("/b")]);
    }

    #[test]
    fn text_that_looks_like_a_number_is_text_where_text_is_wanted() {
        for text in ["7", "true", "1.5", "2026-01-01", "[1]"] {
            assert_eq!(read("", &[("MSGIN5G_LIMITS__NAME", text)]).unwrap().limits.name, text);
        }
    }

    #[test]
    fn elements_of_arrays_are_named_by_number_and_added_in_order() {
        let file = "[[peer]]\ndns_name = \"a\"\n";
        let sample = read(file, &[("MSGIN5G_PEER__0__DNS_NAME", "b"), ("MSGIN5G_PEER__1__DNS_NAME", "c")]).unwrap();
        assert_eq!(sample.peer, [Peer { dns_name: "b".into() }, Peer { dns_name: "c".into() }]);
        let fault = read(file, &[("MSGIN5G_PEER__5__DNS_NAME", "b")]).unwrap_err();
        assert_eq!(fault.variable.as_deref(), Some("MSGIN5G_PEER__5__DNS_NAME"));
    }

    #[test]
    fn a_wrong_value_is_named_with_its_key_and_its_variable() {
        let fault = read("", &[("MSGIN5G_LIMITS__CONNECTIONS_MAX", "many")]).unwrap_err();
        assert_eq!(fault.key, "limits.connections_max");
        assert_eq!(fault.variable.as_deref(), Some("MSGIN5G_LIMITS__CONNECTIONS_MAX"));
        let fault = read("[limits]\nconnections_max = \"many\"\n", &[]).unwrap_err();
        assert_eq!((fault.key.as_str(), fault.variable), ("limits.connections_max", None));
        let fault = read("[[peer]]\ndns_name = 1\n", &[]).unwrap_err();
        assert_eq!(fault.key, "peer[0].dns_name");
    }

    #[test]
    fn an_unknown_key_in_a_section_is_an_error_and_a_foreign_variable_is_not() {
        let fault = read("", &[("MSGIN5G_LIMITS__CONECTIONS_MAX", "1")]).unwrap_err();
        assert_eq!(fault.variable.as_deref(), Some("MSGIN5G_LIMITS__CONECTIONS_MAX"));
        assert!(read("", &[("MSGIN5G_PROFILE", "x.toml"), ("MSGIN5G_K", "00")]).is_ok());
        assert!(read("profile = 1\n", &[]).is_err());
        assert!(read("", &[("MSGIN5G_LIMITS__", "1"), ("PATH", "x"), ("MSGIN5G_", "x")]).is_ok());
    }

    #[test]
    fn a_variable_for_another_function_is_left_to_it() {
        for name in [
            "MSGIN5G_AKMA__AANF",
            "MSGIN5G_AKMA__LOOKUPS__TIMEOUT_MS",
            "MSGIN5G_AF__0__DNS_NAME",
            "MSGIN5G_UDM__ROOT",
            "MSGIN5G_LIMITS__REVALIDATION_SECONDS",
            "MSGIN5G_SERVER__FQDN",
            "MSGIN5G_TABLES__PAGE_MAX",
            "MSGIN5G_AKMA__NO_SUCH_KEY",
            "MSGIN5G_NO_SUCH_SECTION__KEY",
            "MSGIN5G_CRASH_ROUNDS",
        ] {
            let sample = read("limits = { connections_max = 1 }\n", &[(name, "3"), ("MSGIN5G_LIMITS__STRICT", "true")]);
            let Limits { connections_max, strict, .. } = sample.unwrap().limits;
            assert_eq!((connections_max, strict), (1, true), "{name}");
        }
        assert!(read("akma = { aanf = \"x\" }\n", &[("MSGIN5G_AKMA__AANF", "y")]).is_err(), "the file is wrong itself");
    }

    #[test]
    fn a_value_cannot_smuggle_in_another_key() {
        let sample = read("", &[("MSGIN5G_LIMITS__NAME", "\"a\"\nconnections_max = 9")]).unwrap();
        assert_eq!(sample.limits.connections_max, 0);
        assert!(sample.limits.name.contains("connections_max"));
    }

    #[test]
    fn a_file_that_is_not_toml_is_told_with_its_place_and_without_its_content() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a = 1\nk = deadbeef\n").unwrap();
        let failure = super::read(file.path()).unwrap_err();
        let text = format!("{failure:?}");
        assert!(text.contains("line 2") && !text.contains("deadbeef"), "{text}");
    }
}
