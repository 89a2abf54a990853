//! The APIs of the common API framework: TS 29.222 (CAPIF-1, -2, -3, -4, -5 and their `e` variants), TS 33.122.
//!
//! The types of each API stand in a module of its name; [`scope`] is the text of a token's scope. [`connection`] is the one
//! connection that an API invoker keeps to the core function; [`invoker`] is an API invoker; [`aef`] is the side of an API
//! exposing function: it registers, publishes, and lets in whom the core function trusts. The core function itself is
//! `exposure::capif`. Each step, with its request and answer: `docs/reference/capif.md`.

pub mod aef;
pub mod connection;
pub mod events;
pub mod exposing_function;
pub mod identity;
pub mod invoker;
pub mod invoker_management;
pub mod logging;
pub mod policy;
pub mod provider;
pub mod publish;
pub mod scope;
pub mod security;

use serde::{Deserialize, Deserializer};

/// An array that must not be empty (`minItems: 1`), where it is there.
pub(crate) fn some_non_empty<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    match Option::<Vec<T>>::deserialize(deserializer)? {
        Some(items) if items.is_empty() => Err(serde::de::Error::custom("an empty array")),
        items => Ok(items),
    }
}

/// An array that must not be empty.
pub(crate) fn non_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let items = Vec::<T>::deserialize(deserializer)?;
    if items.is_empty() { Err(serde::de::Error::custom("an empty array")) } else { Ok(items) }
}
