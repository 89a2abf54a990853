//! Every described schema against the type behind it, from both sides.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::schema::{Kind, Member, Schema};
use super::{Api, Operation, Role, all, document};
use crate::problem::{ProblemDetails, cause};

/// Every schema of every API that has a type behind it, with how it is reached.
fn typed() -> Vec<(String, Schema)> {
    let mut found = Vec::new();
    for api in all() {
        for operation in &api.operations {
            let at = format!("{} {} {}", api.name, operation.method, operation.path);
            of_operation(operation, &at, &mut found);
        }
    }
    found
}

fn of_operation(operation: &Operation, at: &str, found: &mut Vec<(String, Schema)>) {
    for parameter in &operation.parameters {
        collect(&parameter.schema, &format!("{at} {}", parameter.name), found);
    }
    if let Some((_, schema)) = &operation.request {
        collect(schema, &format!("{at} request"), found);
    }
    for answer in &operation.answers {
        for (_, schema) in &answer.bodies {
            collect(schema, &format!("{at} {}", answer.status), found);
        }
    }
    for (name, _, callback) in &operation.callbacks {
        of_operation(callback, &format!("{at} {name}"), found);
    }
}

fn collect(schema: &Schema, at: &str, found: &mut Vec<(String, Schema)>) {
    if schema.probe.is_some() {
        found.push((at.to_owned(), schema.clone()));
    }
    match &schema.kind {
        Kind::List { items, .. } | Kind::Map(items) => collect(items, &format!("{at}[]"), found),
        Kind::OneOf(schemas) => schemas.iter().for_each(|schema| collect(schema, at, found)),
        Kind::Object { members, .. } => {
            members.iter().for_each(|member| collect(&member.schema, &format!("{at}/{}", member.name), found));
        }
        _ => {}
    }
}

fn objects() -> Vec<(String, Schema, Vec<Member>, Vec<&'static str>)> {
    typed()
        .into_iter()
        .filter_map(|(at, schema)| match schema.kind.clone() {
            Kind::Object { members, exactly_one, .. } => Some((at, schema, members, exactly_one)),
            _ => None,
        })
        .collect()
}

fn read(schema: &Schema, value: &Value) -> Result<Option<Value>, ProblemDetails> {
    (schema.probe.unwrap().reads)(value.to_string().as_bytes())
}

fn without(value: &Value, name: &str) -> Value {
    let mut value = value.clone();
    value.as_object_mut().unwrap().remove(name);
    value
}

fn with(value: &Value, name: &str, member: Value) -> Value {
    let mut value = value.clone();
    value.as_object_mut().unwrap().insert(name.to_owned(), member);
    value
}

#[test]
fn what_a_schema_gives_for_an_example_is_read_and_written_within_the_schema() {
    for (at, schema) in typed() {
        for whole in [true, false] {
            let example = schema.example(whole);
            let written = read(&schema, &example).unwrap_or_else(|problem| panic!("{at}: {example}: {problem:?}"));
            let (Some(Value::Object(written)), Kind::Object { members, .. }) = (written, &schema.kind) else {
                continue;
            };
            for name in written.keys() {
                assert!(members.iter().any(|member| member.name == name), "{at}: {name} is written, not described");
            }
            for member in members.iter().filter(|member| member.required) {
                assert!(written.contains_key(member.name), "{at}: {} is described, not written", member.name);
            }
        }
    }
}

#[test]
fn a_type_reads_the_members_that_are_described_and_no_others() {
    let mut compared = 0;
    for (at, schema, members, _) in objects() {
        let Some(names) = (schema.probe.unwrap().members)() else { continue };
        let read: BTreeSet<_> = names.iter().copied().collect();
        let described: BTreeSet<_> = members.iter().map(|member| member.name).collect();
        assert_eq!(read, described, "{at}");
        compared += 1;
    }
    assert!(compared > 20, "only {compared} types told their members");
}

#[test]
fn a_member_is_missed_exactly_where_it_is_described_as_required() {
    for (at, schema, members, exactly_one) in objects() {
        let whole = schema.example(true);
        for member in members.iter().filter(|member| !exactly_one.contains(&member.name)) {
            let outcome = read(&schema, &without(&whole, member.name));
            if member.required {
                let problem = outcome.expect_err(&format!("{at}: without {}", member.name));
                assert!(problem.has_cause(cause::MANDATORY_IE_MISSING), "{at}: without {}: {problem:?}", member.name);
                assert!(problem.invalid_params.iter().any(|at| at.param.ends_with(member.name)), "{at}: {problem:?}");
            } else {
                assert!(outcome.is_ok(), "{at}: without {}: {outcome:?}", member.name);
            }
        }
        let minimal = schema.example(false);
        if let [chosen, others @ ..] = &exactly_one[..] {
            assert!(read(&schema, &without(&minimal, chosen)).is_err(), "{at}: with none of {exactly_one:?}");
            for other in others {
                let member = members.iter().find(|member| member.name == *other).unwrap();
                let both = with(&minimal, other, member.schema.example(false));
                assert!(read(&schema, &both).is_err(), "{at}: with both of {exactly_one:?}");
                assert!(read(&schema, &without(&both, chosen)).is_ok(), "{at}: with {other}");
            }
        }
    }
}

#[test]
fn a_member_of_another_type_is_refused() {
    for (at, schema, members, _) in objects() {
        let whole = schema.example(true);
        for member in members.iter().filter(|member| whole.get(member.name).is_some()) {
            let wrong = match member.schema.kind {
                Kind::Any => continue,
                Kind::Text { .. } | Kind::Enumeration { .. } => json!(7),
                _ => json!("a text"),
            };
            // A text is a value of one of the alternatives.
            if matches!(&member.schema.kind, Kind::OneOf(_)) {
                continue;
            }
            let outcome = read(&schema, &with(&whole, member.name, wrong));
            assert!(outcome.is_err(), "{at}: {} of another type is accepted", member.name);
        }
    }
}

#[test]
fn an_array_in_the_place_of_an_object_is_refused() {
    for (at, schema, _, _) in objects() {
        let whole = schema.example(true);
        let values: Vec<_> = whole.as_object().unwrap().values().cloned().collect();
        for array in [json!(values), json!([]), json!([whole])] {
            assert!(read(&schema, &array).is_err(), "{at}: {array}");
        }
    }
}

#[test]
fn enumerations_know_their_values_and_only_open_ones_take_others() {
    for (at, schema) in typed() {
        let Kind::Enumeration { values, open } = schema.kind else { continue };
        for value in values {
            let written = read(&schema, &json!(value)).unwrap_or_else(|problem| panic!("{at}: {value}: {problem:?}"));
            assert_eq!(written, Some(json!(value)), "{at}");
        }
        assert_eq!(read(&schema, &json!("OF_A_LATER_RELEASE")).is_ok(), open, "{at}");
    }
}

#[test]
fn null_is_read_exactly_where_it_is_described() {
    for (at, schema, members, _) in objects() {
        let whole = schema.example(true);
        for member in members.iter().filter(|member| member.required) {
            if !matches!(member.schema.kind, Kind::Any) && !matches!(&member.schema.kind, Kind::OneOf(_)) {
                let outcome = read(&schema, &with(&whole, member.name, Value::Null));
                assert_eq!(outcome.is_ok(), member.schema.nullable, "{at}: {} is null", member.name);
            }
        }
    }
}

#[test]
fn a_name_means_one_schema_in_whatever_one_function_serves() {
    let mut known: BTreeMap<(bool, String), (String, Value)> = BTreeMap::new();
    for api in all() {
        // An NRF serves nothing else; it and the CAPIF core function have tokens of the same names.
        let of_nrf = api.file.starts_with("TS29510");
        let document = document(std::slice::from_ref(&api));
        for (name, schema) in document.pointer("/components/schemas").unwrap().as_object().unwrap() {
            let (other, first) =
                known.entry((of_nrf, name.clone())).or_insert_with(|| (api.name.to_owned(), schema.clone()));
            assert_eq!(first, schema, "{name} of {other} and of {}", api.name);
        }
    }
}

#[test]
fn every_mandatory_body_has_a_type_behind_it() {
    let untyped = |api: &Api| {
        let mut bodies = api.operations.iter().filter_map(|operation| operation.request.as_ref());
        bodies.any(|(media_type, schema)| *media_type == super::api::JSON && schema.probe.is_none())
    };
    for api in all() {
        assert!(!untyped(&api), "{}", api.name);
        assert!(api.role == Role::Producer || api.operations.iter().all(|operation| !operation.answers.is_empty()));
    }
}
