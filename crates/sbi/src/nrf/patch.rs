//! JSON patches (RFC 6902, TS 29.571 PatchItem), by which profiles are updated and heartbeats sent.
//!
//! A patch is applied whole or not at all. What a peer can make of it is bounded: [`PATCH_ITEMS_MAX`] items, and a result of
//! as many octets as the caller allows, which counts because `copy` doubles a document.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PatchItem {
    /// What is done.
    pub op: PatchOperation,
    /// Where: a JSON pointer (RFC 6901).
    pub path: String,
    /// Where from, for `move` and `copy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What with, for `add`, `replace` and `test`; `null` is a value.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

impl PatchItem {
    /// Puts `value` in place of what is at `path`.
    #[must_use]
    pub fn replace(path: &str, value: Value) -> Self {
        Self { op: PatchOperation::Replace, path: path.to_owned(), from: None, value: Some(value) }
    }
}

/// What a [`PatchItem`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PatchOperation {
    /// Puts a value where none is, or into a list.
    Add,
    /// Puts a copy of another place's value there.
    Copy,
    /// Takes a value from another place there.
    Move,
    /// Takes a value away.
    Remove,
    /// Puts a value in place of another.
    Replace,
    /// Demands a value.
    Test,
}

/// Why a patch was not applied. The number is the item's, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// There are no items, or more than [`PATCH_ITEMS_MAX`].
    #[error("a patch has 1 to {PATCH_ITEMS_MAX} items")]
    Items,
    /// The item lacks `value` or `from`, or a path is no JSON pointer.
    #[error("item {0} is not complete")]
    Incomplete(usize),
    /// The place is not there.
    #[error("item {0} names a place that is not there")]
    NoSuchPlace(usize),
    /// The value tested for is another.
    #[error("item {0} tests for another value")]
    TestFailed(usize),
    /// The result would be larger than allowed.
    #[error("item {0} makes the document larger than allowed")]
    TooLarge(usize),
}

/// Items of one patch.
pub const PATCH_ITEMS_MAX: usize = 64;

/// `document` with `items` applied to it in order, of at most `octets_max` octets.
///
/// # Errors
/// [`PatchError`]; nothing has changed then.
pub fn apply_patch(document: &Value, items: &[PatchItem], octets_max: usize) -> Result<Value, PatchError> {
    if items.is_empty() || items.len() > PATCH_ITEMS_MAX {
        return Err(PatchError::Items);
    }
    let mut result = document.clone();
    for (number, item) in items.iter().enumerate() {
        apply(&mut result, item, number)?;
        if matches!(item.op, PatchOperation::Add | PatchOperation::Copy | PatchOperation::Replace)
            && serde_json::to_vec(&result).map_or(usize::MAX, |octets| octets.len()) > octets_max
        {
            return Err(PatchError::TooLarge(number));
        }
    }
    Ok(result)
}

fn apply(document: &mut Value, item: &PatchItem, number: usize) -> Result<(), PatchError> {
    let incomplete = PatchError::Incomplete(number);
    let missing = PatchError::NoSuchPlace(number);
    let value = || item.value.clone().ok_or(incomplete);
    let from = || item.from.as_deref().ok_or(incomplete);
    let path = item.path.as_str();
    if !is_pointer(path) || item.from.as_deref().is_some_and(|from| !is_pointer(from)) {
        return Err(incomplete);
    }
    match item.op {
        PatchOperation::Add => add(document, path, value()?).ok_or(missing),
        PatchOperation::Remove => remove(document, path).map(drop).ok_or(missing),
        PatchOperation::Replace => {
            *document.pointer_mut(path).ok_or(missing)? = value()?;
            Ok(())
        }
        PatchOperation::Copy => {
            let copy = document.pointer(from()?).ok_or(missing)?.clone();
            add(document, path, copy).ok_or(missing)
        }
        PatchOperation::Move => {
            let from = from()?;
            // A value cannot go into itself (RFC 6902 clause 4.4).
            if path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
                return Err(missing);
            }
            let moved = remove(document, from).ok_or(missing)?;
            add(document, path, moved).ok_or(missing)
        }
        PatchOperation::Test => {
            let found = document.pointer(path).ok_or(missing)?;
            if *found == value()? { Ok(()) } else { Err(PatchError::TestFailed(number)) }
        }
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Option<()> {
    let Some((parent, last)) = split(path) else {
        *document = value;
        return Some(());
    };
    match document.pointer_mut(parent)? {
        Value::Object(members) => drop(members.insert(last, value)),
        Value::Array(elements) if last == "-" => elements.push(value),
        Value::Array(elements) => {
            let at = index(&last)?;
            if at > elements.len() {
                return None;
            }
            elements.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(document: &mut Value, path: &str) -> Option<Value> {
    let Some((parent, last)) = split(path) else { return Some(std::mem::take(document)) };
    match document.pointer_mut(parent)? {
        Value::Object(members) => members.remove(&last),
        Value::Array(elements) => {
            let at = index(&last)?;
            (at < elements.len()).then(|| elements.remove(at))
        }
        _ => None,
    }
}

/// A pointer's parent, and its last token in clear; `None` for the whole document.
fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn is_pointer(path: &str) -> bool {
    path.is_empty() || path.starts_with('/')
}

/// An index of a list (RFC 6901 clause 4): no sign, no leading zero.
fn index(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|octet| octet.is_ascii_digit());
    (digits && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok())?
}

/// A member that is there, `null` included.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const OCTETS: usize = 10_000;

    fn patched(document: Value, patch: Value) -> Result<Value, PatchError> {
        let items: Vec<PatchItem> = serde_json::from_value(patch).unwrap();
        apply_patch(&document, &items, OCTETS)
    }

    /// Examples of RFC 6902 appendix A.
    #[test]
    fn operations_do_what_rfc_6902_shows() {
        let cases = [
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/baz", "value": "qux"}]),
                json!({"baz": "qux", "foo": "bar"}),
            ),
            (
                json!({"foo": ["bar", "baz"]}),
                json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
                json!({"foo": ["bar", "qux", "baz"]}),
            ),
            (json!({"baz": "qux", "foo": "bar"}), json!([{"op": "remove", "path": "/baz"}]), json!({"foo": "bar"})),
            (
                json!({"foo": ["bar", "qux", "baz"]}),
                json!([{"op": "remove", "path": "/foo/1"}]),
                json!({"foo": ["bar", "baz"]}),
            ),
            (
                json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}),
                json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]),
                json!({"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}),
            ),
            (
                json!({"foo": ["all", "grass", "cows", "eat"]}),
                json!([{"op": "move", "from": "/foo/1", "path": "/foo/3"}]),
                json!({"foo": ["all", "cows", "eat", "grass"]}),
            ),
            (
                json!({"foo": ["bar"]}),
                json!([{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}]),
                json!({"foo": ["bar", ["abc", "def"]]}),
            ),
            (
                json!({"/": 9, "~1": 10}),
                json!([{"op": "test", "path": "/~01", "value": 10}]),
                json!({"/": 9, "~1": 10}),
            ),
            (json!({"a": 1}), json!([{"op": "replace", "path": "/a", "value": null}]), json!({"a": null})),
        ];
        for (document, patch, expected) in cases {
            assert_eq!(patched(document, patch.clone()).unwrap(), expected, "{patch}");
        }
    }

    #[test]
    fn a_patch_that_does_not_fit_changes_nothing_and_says_why() {
        let document = json!({"a": {"b": 1}, "l": [1]});
        for (patch, error) in [
            (json!([{"op": "replace", "path": "/c", "value": 1}]), PatchError::NoSuchPlace(0)),
            (json!([{"op": "add", "path": "/l/2", "value": 1}]), PatchError::NoSuchPlace(0)),
            (json!([{"op": "add", "path": "/l/01", "value": 1}]), PatchError::NoSuchPlace(0)),
            (json!([{"op": "add", "path": "/a/b/c", "value": 1}]), PatchError::NoSuchPlace(0)),
            (json!([{"op": "add", "path": "/x"}]), PatchError::Incomplete(0)),
            (json!([{"op": "move", "path": "/x"}]), PatchError::Incomplete(0)),
            (json!([{"op": "add", "path": "x", "value": 1}]), PatchError::Incomplete(0)),
            (json!([{"op": "move", "from": "/a", "path": "/a/b"}]), PatchError::NoSuchPlace(0)),
            (
                json!([{"op": "remove", "path": "/l"}, {"op": "test", "path": "/a/b", "value": 2}]),
                PatchError::TestFailed(1),
            ),
            (json!([]), PatchError::Items),
        ] {
            assert_eq!(patched(document.clone(), patch.clone()).unwrap_err(), error, "{patch}");
        }
    }

    #[test]
    fn a_patch_that_copies_the_document_into_itself_again_and_again_is_stopped() {
        let copy = |number: usize| json!({"op": "copy", "from": "", "path": format!("/copy{number}")});
        let patch = Value::Array((0..PATCH_ITEMS_MAX).map(copy).collect());
        assert!(matches!(patched(json!({"text": "some"}), patch).unwrap_err(), PatchError::TooLarge(_)));
    }

    #[test]
    fn more_items_than_allowed_are_refused() {
        let test = json!({"op": "test", "path": "/a", "value": 1});
        let patch = |items| Value::Array(vec![test.clone(); items]);
        assert!(patched(json!({"a": 1}), patch(PATCH_ITEMS_MAX)).is_ok());
        assert_eq!(patched(json!({"a": 1}), patch(PATCH_ITEMS_MAX + 1)).unwrap_err(), PatchError::Items);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn no_patch_panics_or_outgrows_its_bound(
            ops in prop::collection::vec(
                (0_usize..6, "(/[ab01~-]{0,2}){0,3}", "(/[ab01~-]{0,2}){0,3}", any::<Option<u8>>()), 1..9,
            ),
        ) {
            let names = ["add", "copy", "move", "remove", "replace", "test"];
            let patch: Vec<Value> = ops
                .into_iter()
                .map(|(op, path, from, value)| json!({"op": names[op % 6], "path": path, "from": from, "value": value}))
                .collect();
            let items: Vec<PatchItem> = serde_json::from_value(Value::Array(patch)).unwrap();
            if let Ok(result) = apply_patch(&json!({"a": {"b": [1, 2]}, "b": [{"a": 1}]}), &items, OCTETS) {
                prop_assert!(serde_json::to_vec(&result).unwrap().len() <= OCTETS);
            }
        }
    }
}
