//! JSON merge patches, by which TS 29.222 has resources changed.

use sbi::{ProblemDetails, merge_patch, parse_json};
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
    merge_patch(&mut after, Value::Object(known.map(|(name, value)| (name.clone(), value.clone())).collect()));
    let text = serde_json::to_vec(&after).map_err(internal)?;
    Ok(parse_json(&text)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

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
