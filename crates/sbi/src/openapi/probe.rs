//! What a Rust type reads, found out from the type itself, so that a description cannot drift away from it.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde_json::Value;

use crate::problem::ProblemDetails;

/// The type behind a schema.
#[derive(Clone, Copy)]
#[cfg_attr(not(test), allow(dead_code, reason = "it is there for the tests that hold schema and type together"))]
pub(super) struct Probe {
    pub(super) type_name: &'static str,
    /// Reads a JSON text as the handlers do, and writes what was read, if anything here writes the type.
    pub(super) reads: fn(&[u8]) -> Result<Option<Value>, ProblemDetails>,
    /// The members that the type reads, if it says so.
    pub(super) members: fn() -> Option<&'static [&'static str]>,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name)
    }
}

/// The names of the members that `T` reads: a derived `Deserialize` tells them to its deserializer. None where it is not
/// derived, or has flattened members.
pub(super) fn member_names<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let names = Cell::new(None);
    // Always an error: there is nothing to read.
    let _ = T::deserialize(Listener(&names));
    names.get()
}

struct Listener<'a>(&'a Cell<Option<&'static [&'static str]>>);

#[derive(Debug)]
struct Nothing;

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing to read")
    }
}

impl std::error::Error for Nothing {}

impl de::Error for Nothing {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for Listener<'_> {
    type Error = Nothing;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Nothing> {
        Err(Nothing)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Nothing> {
        self.0.set(Some(fields));
        Err(Nothing)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Nothing> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Nothing> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}
