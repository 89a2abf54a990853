//! JSON merge patches (RFC 7396), by which TS 29.222 has resources changed: a member that is `null` takes away what is there,
//! an object changes the members that it has, anything else comes in the place of what was there.

use sbi::ProblemDetails;
use sbi::parse_json;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::service::Refusal;

/// The body of a PATCH: an object.
pub(crate) type MergePatch = Map<String, Value>;

/// `before` with those `members` changed that the API's schema of the patch has; whatever else is in the patch is ignored.
/// 400 where no such resource comes of it, as when a member that it needs was taken away.
pub(crate) fn merged<T: Serialize + DeserializeOwned>(
    before: &T,
    patch: &MergePatch,
    members: &[&str],
) -> Result<T, Refusal> {
    let internal = |_| Refusal::from(ProblemDetails::internal());
    let mut after = serde_json::to_value(before).map_err(internal)?;
    let known = patch.iter().filter(|(name, _)| members.contains(&name.as_str()));
    merge(&mut after, &Value::Object(known.map(|(name, value)| (name.clone(), value.clone())).collect()));
    let text = serde_json::to_vec(&after).map_err(internal)?;
    Ok(parse_json(&text)?)
}

/// RFC 7396 clause 2. It goes no deeper than a body does, which is bounded.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_examples_of_rfc_7396_come_out_as_it_says() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut after = target.clone();
            merge(&mut after, &patch);
            assert_eq!(after, result, "{target} with {patch}");
        }
    }

    #[test]
    fn members_that_the_schema_does_not_have_stay_and_one_that_is_needed_cannot_go() {
        #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
        struct Resource {
            needed: u8,
            #[serde(skip_serializing_if = "Option::is_none")]
            optional: Option<u8>,
            fixed: u8,
        }
        let before = Resource { needed: 1, optional: Some(2), fixed: 3 };
        let patch = |value: Value| merged(&before, value.as_object().unwrap(), &["needed", "optional"]);
        let after = patch(json!({"optional": null, "fixed": 9, "other": {}})).unwrap();
        assert_eq!(after, Resource { needed: 1, optional: None, fixed: 3 });
        let refusal = patch(json!({"needed": null})).unwrap_err().0;
        assert_eq!((refusal.status, refusal.cause.as_deref()), (Some(400), Some("MANDATORY_IE_MISSING")));
        let refusal = patch(json!({"needed": "x"})).unwrap_err().0;
        assert_eq!((refusal.status, refusal.cause.as_deref()), (Some(400), Some("MANDATORY_IE_INCORRECT")));
    }
}
