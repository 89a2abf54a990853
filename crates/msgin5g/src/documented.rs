//! Holds `docs/reference/configuration.md` to the code: every key is documented, every documented key exists, and the
//! defaults of the limits are what the code says.
//!
//! The keys are found by asking each configuration type what it would read: a deserializer that has nothing to give
//! notes what it is asked for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor},
    forward_to_deserialize_any,
};

use crate::profile::ProfileFile;

/// One step from a configuration to one of its keys.
#[derive(Clone, Copy, Debug)]
enum Step {
    Field(&'static str),
    Element,
    Variant(&'static str),
}

/// What a type asks for.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Fields(&'static [&'static str]),
    Variants(&'static [&'static str]),
    Elements,
    Leaf,
}

/// Walks along a path, notes what is asked for at its end, and fails.
struct Walker<'a> {
    path: &'a [Step],
    found: &'a RefCell<Option<Shape>>,
}

#[derive(Debug)]
struct Over;

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("over")
    }
}

impl std::error::Error for Over {}

impl de::Error for Over {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'a> Walker<'a> {
    fn note<T>(&self, shape: Shape) -> Result<T, Over> {
        *self.found.borrow_mut() = Some(shape);
        Err(Over)
    }

    fn next(&self) -> Option<(Step, Walker<'a>)> {
        let (step, path) = self.path.split_first()?;
        Some((*step, Walker { path, found: self.found }))
    }
}

impl<'de> Deserializer<'de> for Walker<'_> {
    type Error = Over;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Over> {
        self.note(Shape::Leaf)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Over> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Over> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Over> {
        match self.next() {
            Some((Step::Field(field), rest)) => visitor.visit_map(One { name: Some(field), rest }),
            _ => self.note(Shape::Fields(fields)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Over> {
        match self.next() {
            Some((Step::Element, rest)) => visitor.visit_seq(One { name: None, rest }),
            _ => self.note(Shape::Elements),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Over> {
        match self.next() {
            Some((Step::Variant(variant), rest)) => visitor.visit_enum(One { name: Some(variant), rest }),
            _ => self.note(Shape::Variants(variants)),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map identifier ignored_any
    }
}

/// The one thing that leads on.
struct One<'a> {
    name: Option<&'static str>,
    rest: Walker<'a>,
}

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Over;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Over> {
        self.name.take().map(|name| seed.deserialize(name.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Over> {
        seed.deserialize(Walker { path: self.rest.path, found: self.rest.found })
    }
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Over;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Over> {
        seed.deserialize(Walker { path: self.rest.path, found: self.rest.found }).map(Some)
    }
}

impl<'de> de::EnumAccess<'de> for One<'_> {
    type Error = Over;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Over> {
        let name = self.name.unwrap_or_default();
        Ok((seed.deserialize(IntoDeserializer::<Over>::into_deserializer(name))?, self))
    }
}

impl<'de> VariantAccess<'de> for One<'_> {
    type Error = Over;

    fn unit_variant(self) -> Result<(), Over> {
        self.rest.note(Shape::Leaf)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Over> {
        seed.deserialize(self.rest)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Over> {
        self.rest.note(Shape::Leaf)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], _: V) -> Result<V::Value, Over> {
        self.rest.note(Shape::Fields(fields))
    }
}

/// Every key that a configuration type reads, as `section.key`.
fn keys<'de, T: Deserialize<'de>>() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut open: Vec<Vec<Step>> = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let found = RefCell::new(None);
        let _ = T::deserialize(Walker { path: &path, found: &found });
        let further = |step: Step| path.iter().copied().chain([step]).collect();
        match found.into_inner().unwrap_or(Shape::Leaf) {
            Shape::Fields(fields) => open.extend(fields.iter().map(|field| further(Step::Field(field)))),
            Shape::Elements => open.push(further(Step::Element)),
            Shape::Variants(variants) => open.extend(variants.iter().map(|variant| further(Step::Variant(variant)))),
            Shape::Leaf => {
                keys.insert(name(&path));
            }
        }
    }
    keys
}

fn name(path: &[Step]) -> String {
    let mut names: Vec<&str> = path
        .iter()
        .filter_map(|step| match step {
            Step::Field(name) | Step::Variant(name) => Some(*name),
            Step::Element => None,
        })
        .collect();
    // The alternatives of a plain enumeration are values, not keys.
    if matches!(path.last(), Some(Step::Variant(_))) {
        names.pop();
    }
    names.join(".")
}

/// The rows of the document's tables: heading, key, further columns.
fn rows() -> Vec<(String, String, Vec<String>)> {
    let document = include_str!("../../../docs/reference/configuration.md");
    let mut heading = String::new();
    let mut rows = Vec::new();
    for line in document.lines() {
        if let Some(text) = line.strip_prefix('#') {
            heading = text.trim_start_matches('#').trim().to_owned();
        } else if let Some((key, rest)) = line.strip_prefix("| `").and_then(|row| row.split_once('`')) {
            let columns = rest.trim_matches('|').split('|').map(|column| column.trim().to_owned()).collect();
            rows.push((heading.clone(), key.to_owned(), columns));
        }
    }
    rows
}

/// The heading that a link leads to, as an anchor.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|character| character.is_alphanumeric() || " -".contains(*character));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The keys documented under a heading, groups of limits included; and the prefixes that another file documents.
fn documented(heading: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let rows = rows();
    let (mut keys, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
    for (_, key, columns) in rows.iter().filter(|(of, ..)| of == heading) {
        let Some(prefix) = key.strip_suffix('*') else {
            keys.insert(key.clone());
            continue;
        };
        let columns = columns.join("|");
        let target = columns.split("](").nth(1).unwrap().split(')').next().unwrap();
        match target.strip_prefix('#') {
            Some(target) => {
                let group: Vec<_> = rows.iter().filter(|(of, ..)| anchor(of) == target).collect();
                assert!(!group.is_empty(), "{target} is no heading with a table");
                keys.extend(group.iter().map(|(_, key, _)| format!("{prefix}{key}")));
            }
            None => drop(elsewhere.insert(prefix.to_owned())),
        }
    }
    (keys, elsewhere)
}

#[track_caller]
fn compare<'de, T: Deserialize<'de>>(heading: &str) {
    let (documented, elsewhere) = documented(heading);
    let is_elsewhere = |key: &&String| elsewhere.iter().any(|prefix| key.starts_with(prefix.as_str()));
    let read: BTreeSet<String> = keys::<T>();
    let read: BTreeSet<String> = read.iter().filter(|key| !is_elsewhere(key)).cloned().collect();
    assert!(read.len() > 10, "{heading}: {read:?}");
    let missing: Vec<_> = read.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&read).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "{heading}: not documented {missing:?}; unknown {unknown:?}");
}

#[test]
fn every_key_is_documented_and_every_documented_key_exists() {
    compare::<server::Config>("Server");
    compare::<aanf::Config>("AKMA Anchor Function");
    compare::<configuration::Config>("Configuration Function");
    compare::<exposure::Config>("Exposure");
    compare::<ProfileFile>("Client profile");
    compare::<client::ApplicationsConfig>("Applications file");
}

#[track_caller]
fn compare_defaults<T: Default + Serialize>(heading: &str) {
    let code: BTreeMap<String, serde_json::Value> =
        serde_json::from_value(serde_json::to_value(T::default()).unwrap()).unwrap();
    let document: BTreeMap<String, serde_json::Value> = rows()
        .into_iter()
        .filter(|(of, ..)| of == heading)
        .map(|(_, key, columns)| {
            let default = columns.iter().find(|column| !column.is_empty()).unwrap();
            (key, serde_json::from_str(default).unwrap())
        })
        .collect();
    assert_eq!(code, document, "{heading}");
}

#[test]
fn the_documented_defaults_of_limits_are_those_of_the_code() {
    compare_defaults::<client::ClientLimits>("Client limits");
    compare_defaults::<client::LocalLimits>("Limits of the applications' socket");
    compare_defaults::<server::DeviceLimits>("Devices over HTTPS");
    compare_defaults::<sbi::ServerLimits>("HTTP/2 servers");
    compare_defaults::<sbi::ClientLimits>("HTTP/2 clients");
    compare_defaults::<sbi::nrf::NrfLimits>("NRF client");
    compare_defaults::<transport::HandshakeLimits>("Handshakes");
    compare_defaults::<transport::oscore::OscoreLimits>("OSCORE contexts");
    compare_defaults::<transport::DtlsLimits>("DTLS");
    compare_defaults::<transport::LookupLimits>("Key look-ups");
    compare_defaults::<configuration::CoapLimits>("Connections of UEs to the Configuration Function");
    compare_defaults::<store::DatabaseOptions>("Database");
    compare_defaults::<store::StoreLimits>("Message store");
}

/// The examples of a reference page: heading, text.
fn examples(document: &str) -> Vec<(String, String)> {
    let (mut heading, mut examples, mut open) = (String::new(), Vec::new(), None::<String>);
    for line in document.lines() {
        match (&mut open, line) {
            (None, "```toml") => open = Some(String::new()),
            (Some(_), "```") => examples.push((heading.clone(), open.take().unwrap())),
            (Some(example), line) => *example += &format!("{line}\n"),
            (None, line) => {
                if let Some(text) = line.strip_prefix("## ") {
                    heading = text.to_owned();
                }
            }
        }
    }
    examples
}

#[test]
fn the_examples_of_policy_files_are_policy_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    let examples = examples(include_str!("../../../docs/reference/policy.md"));
    assert_eq!(examples.len(), 5);
    for (function, example) in examples {
        std::fs::write(&path, example).unwrap();
        match function.as_str() {
            "AKMA Anchor Function" => assert_eq!(aanf::PolicyFile::read(&path).unwrap().afs.len(), 4),
            "CAPIF core function" => {
                let policy: exposure::capif::PolicyFile = sbi::policy::read(&path).unwrap();
                assert_eq!((policy.onboardings.len(), policy.registrations.len()), (1, 1));
            }
            "Configuration Function" => {
                let policy = configuration::PolicyFile::read(&path).unwrap();
                assert_eq!((policy.provisioners.len(), policy.readers.len()), (1, 1));
            }
            "NEF" => assert_eq!(sbi::policy::read::<exposure::nef::PolicyFile>(&path).unwrap().afs.len(), 1),
            "MSGin5G Server" => {
                let policy: server::PolicyFile = sbi::policy::read(&path).unwrap();
                let rules = (policy.application_server.len(), policy.topic.len(), policy.topic_server.len());
                assert_eq!(rules, (1, 1, 1));
            }
            other => panic!("no function {other}"),
        }
    }
}
