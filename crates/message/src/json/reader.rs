//! Strict reading of JSON values on top of `serde_json`, without a tree in between.
//!
//! A seed per JSON type hands the value to a closure where it lies in the input. `serde_json` can only carry errors as
//! text, so the seeds leave the real one in the [`Reader`], along with the member they are at.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::{DecodeError, MemberPath};
use crate::limits::DecodeLimits;

/// What one pass over one message knows about where it is.
pub(super) struct Reader<'l> {
    pub(super) limits: &'l DecodeLimits,
    at: Cell<Option<(MemberPath, &'static str)>>,
    refusal: Cell<Option<DecodeError>>,
}

impl<'l> Reader<'l> {
    pub(super) fn new(limits: &'l DecodeLimits) -> Self {
        Self { limits, at: Cell::new(None), refusal: Cell::new(None) }
    }

    /// Steps to a member whose value is to be `expected`.
    fn step(&self, member: MemberPath, expected: &'static str) {
        self.at.set(Some((member, expected)));
    }

    /// Ends the pass with `error`.
    pub(super) fn refuse<E: Error>(&self, error: DecodeError) -> E {
        self.refusal.set(Some(error));
        E::custom("refused")
    }

    fn check_depth<E: Error>(&self, depth: usize) -> Result<(), E> {
        let depth_max = self.limits.depth_max.min(DecodeLimits::DEPTH_MAX);
        if depth > depth_max { Err(self.refuse(DecodeError::NestedTooDeeply { depth_max })) } else { Ok(()) }
    }

    /// What an error of `serde_json` stands for.
    pub(super) fn explain(&self, error: &serde_json::Error) -> DecodeError {
        if let Some(refusal) = self.refusal.take() {
            return refusal;
        }
        match (error.classify(), self.at.get()) {
            (serde_json::error::Category::Data, Some((member, expected))) => {
                DecodeError::WrongType { member, expected }
            }
            (serde_json::error::Category::Data, None) => DecodeError::NotAnObject,
            _ => DecodeError::NotJson { line: error.line(), column: error.column() },
        }
    }

    /// Reads the next value of `map` as text into `slot`.
    pub(super) fn text<'de, A: MapAccess<'de>, T>(
        &self,
        map: &mut A,
        slot: &mut Option<T>,
        member: MemberPath,
        read: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Result<(), A::Error> {
        self.text_or(map, slot, member, |text| read(text).map_err(|reason| DecodeError::Invalid { member, reason }))
    }

    /// As [`Reader::text`], for a value that can be wrong in more than one way.
    pub(super) fn text_or<'de, A: MapAccess<'de>, T>(
        &self,
        map: &mut A,
        slot: &mut Option<T>,
        member: MemberPath,
        read: impl FnOnce(&str) -> Result<T, DecodeError>,
    ) -> Result<(), A::Error> {
        self.enter(slot, member, "a string")?;
        *slot = Some(map.next_value_seed(Text { reader: self, read })?);
        Ok(())
    }

    /// Reads the next value of `map` as a boolean into `slot`.
    pub(super) fn flag<'de, A: MapAccess<'de>>(
        &self,
        map: &mut A,
        slot: &mut Option<bool>,
        member: MemberPath,
    ) -> Result<(), A::Error> {
        self.enter(slot, member, "a boolean")?;
        *slot = Some(map.next_value_seed(Flag)?);
        Ok(())
    }

    /// Reads the next value of `map` as an integer between `min` and `max` into `slot`.
    pub(super) fn number<'de, A: MapAccess<'de>>(
        &self,
        map: &mut A,
        slot: &mut Option<u32>,
        member: MemberPath,
        (min, max): (u32, u32),
    ) -> Result<(), A::Error> {
        self.enter(slot, member, "an integer")?;
        *slot = Some(map.next_value_seed(Number { reader: self, member, min, max })?);
        Ok(())
    }

    /// Reads the next value of `map` as an object into `slot`.
    pub(super) fn object<'de, A: MapAccess<'de>, M: Members>(
        &self,
        map: &mut A,
        slot: &mut Option<M>,
        member: &'static str,
        members: M,
    ) -> Result<(), A::Error> {
        self.object_in(map, slot, MemberPath::top(member), 1, members)
    }

    /// As [`Reader::object`], inside an object at `depth`.
    pub(super) fn object_in<'de, A: MapAccess<'de>, M: Members>(
        &self,
        map: &mut A,
        slot: &mut Option<M>,
        member: MemberPath,
        depth: usize,
        members: M,
    ) -> Result<(), A::Error> {
        self.enter(slot, member, "an object")?;
        *slot = Some(map.next_value_seed(Object { reader: self, depth: depth + 1, members })?);
        Ok(())
    }

    /// Reads the next value of `map` as an array of text into `slot`, as `list` says.
    pub(super) fn texts<'de, A: MapAccess<'de>, T>(
        &self,
        map: &mut A,
        slot: &mut Option<Vec<T>>,
        list: List,
        read: impl Fn(&str) -> Result<T, &'static str> + Copy,
    ) -> Result<(), A::Error> {
        self.enter(slot, list.member, "an array of strings")?;
        let invalid = move |reason| DecodeError::Invalid { member: list.member, reason };
        let element = || Text { reader: self, read: move |text: &str| read(text).map_err(invalid) };
        *slot = Some(map.next_value_seed(Elements { reader: self, list, expected: "an array of strings", element })?);
        Ok(())
    }

    /// Reads the next value of `map` as an array of integers between `min` and `max` into `slot`, as `list` says.
    pub(super) fn numbers<'de, A: MapAccess<'de>>(
        &self,
        map: &mut A,
        slot: &mut Option<Vec<u32>>,
        list: List,
        (min, max): (u32, u32),
    ) -> Result<(), A::Error> {
        self.enter(slot, list.member, "an array of integers")?;
        let element = || Number { reader: self, member: list.member, min, max };
        *slot =
            Some(map.next_value_seed(Elements { reader: self, list, expected: "an array of integers", element })?);
        Ok(())
    }

    /// Reads the next value of `map` as an array of objects into `slot`, as `list` says.
    pub(super) fn objects<'de, A: MapAccess<'de>, M: Members>(
        &self,
        map: &mut A,
        slot: &mut Option<Vec<M>>,
        list: List,
        members: impl Fn() -> M,
    ) -> Result<(), A::Error> {
        self.enter(slot, list.member, "an array of objects")?;
        let element = || Object { reader: self, depth: list.depth + 2, members: members() };
        *slot = Some(map.next_value_seed(Elements { reader: self, list, expected: "an array of objects", element })?);
        Ok(())
    }

    fn enter<T, E: Error>(&self, slot: &Option<T>, member: MemberPath, expected: &'static str) -> Result<(), E> {
        if slot.is_some() {
            return Err(self.refuse(DecodeError::Duplicate { member }));
        }
        self.step(member, expected);
        Ok(())
    }
}

/// An object whose members are known: how to tell them apart, and how to read each.
pub(super) trait Members: Sized {
    /// One of them.
    type Field: Copy;

    /// The member of that name, if it is known.
    fn field(name: &str) -> Option<Self::Field>;

    /// Reads its value, the next one of `map`.
    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        field: Self::Field,
        map: &mut A,
        reader: &Reader<'_>,
    ) -> Result<(), A::Error>;
}

/// An object, at `depth` (the message itself is at 1).
pub(super) struct Object<'r, 'l, M> {
    reader: &'r Reader<'l>,
    depth: usize,
    members: M,
}

impl<'r, 'l, M: Members> Object<'r, 'l, M> {
    /// The message itself.
    pub(super) fn outermost(reader: &'r Reader<'l>, members: M) -> Self {
        Self { reader, depth: 1, members }
    }
}

impl<'de, M: Members> DeserializeSeed<'de> for Object<'_, '_, M> {
    type Value = M;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<M, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, M: Members> Visitor<'de> for Object<'_, '_, M> {
    type Value = M;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<M, A::Error> {
        self.reader.check_depth(self.depth)?;
        while let Some(field) = map.next_key_seed(Key::<M>(std::marker::PhantomData))? {
            match field {
                Some(field) => self.members.read(field, &mut map, self.reader)?,
                None => map.next_value_seed(Skip { reader: self.reader, depth: self.depth })?,
            }
        }
        Ok(self.members)
    }
}

struct Key<M>(std::marker::PhantomData<M>);

impl<'de, M: Members> DeserializeSeed<'de> for Key<M> {
    type Value = Option<M::Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<M: Members> Visitor<'_> for Key<M> {
    type Value = Option<M::Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(M::field(name))
    }
}

struct Text<'r, 'l, F> {
    reader: &'r Reader<'l>,
    read: F,
}

impl<'de, T, F: FnOnce(&str) -> Result<T, DecodeError>> DeserializeSeed<'de> for Text<'_, '_, F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> Result<T, DecodeError>> Visitor<'_> for Text<'_, '_, F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(|error| self.reader.refuse(error))
    }
}

struct Flag;

impl<'de> DeserializeSeed<'de> for Flag {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_bool(self)
    }
}

impl Visitor<'_> for Flag {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a boolean")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<bool, E> {
        Ok(flag)
    }
}

struct Number<'r, 'l> {
    reader: &'r Reader<'l>,
    member: MemberPath,
    min: u32,
    max: u32,
}

impl<'de> DeserializeSeed<'de> for Number<'_, '_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u32, D::Error> {
        deserializer.deserialize_u32(self)
    }
}

impl Visitor<'_> for Number<'_, '_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u32, E> {
        match u32::try_from(number) {
            Ok(number) if (self.min..=self.max).contains(&number) => Ok(number),
            _ => Err(self.reader.refuse(DecodeError::Invalid { member: self.member, reason: "is out of range" })),
        }
    }

    fn visit_i64<E: Error>(self, _negative: i64) -> Result<u32, E> {
        Err(self.reader.refuse(DecodeError::Invalid { member: self.member, reason: "is out of range" }))
    }
}

/// What is known of an array before it is read.
#[derive(Clone, Copy)]
pub(super) struct List {
    /// Which.
    pub(super) member: MemberPath,
    /// Depth of the object that it is in.
    pub(super) depth: usize,
    /// How many elements it has at least.
    pub(super) min: usize,
    /// How many elements it has at most: reading stops at the first that is too many.
    pub(super) max: usize,
}

struct Elements<'r, 'l, F> {
    reader: &'r Reader<'l>,
    list: List,
    expected: &'static str,
    element: F,
}

impl<'de, S: DeserializeSeed<'de>, F: Fn() -> S> DeserializeSeed<'de> for Elements<'_, '_, F> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, S: DeserializeSeed<'de>, F: Fn() -> S> Visitor<'de> for Elements<'_, '_, F> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let Self { reader, list: List { member, depth, min, max }, expected, element } = self;
        reader.check_depth(depth + 1)?;
        let mut elements = Vec::new();
        loop {
            // An element that is an object has stepped to its own members.
            reader.step(member, expected);
            if elements.len() == max {
                // What is too many is not read, whatever it is.
                seq.next_element_seed(Refusing { reader, member })?;
                break;
            }
            match seq.next_element_seed(element())? {
                Some(element) => elements.push(element),
                None => break,
            }
        }
        if elements.len() < min {
            return Err(reader.refuse(DecodeError::Invalid { member, reason: "has too few elements" }));
        }
        Ok(elements)
    }
}

/// In the place of the first element that is one too many.
struct Refusing<'r, 'l> {
    reader: &'r Reader<'l>,
    member: MemberPath,
}

impl<'de> DeserializeSeed<'de> for Refusing<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        Err(self.reader.refuse(DecodeError::Invalid { member: self.member, reason: "has too many elements" }))
    }
}

/// Skips a value, inside an object or array at `depth`, and counts how deep it goes: an unknown member is tolerated, but
/// not at any price.
struct Skip<'r, 'l> {
    reader: &'r Reader<'l>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Skip<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.depth + 1;
        self.reader.check_depth(depth)?;
        while seq.next_element_seed(Skip { reader: self.reader, depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = self.depth + 1;
        self.reader.check_depth(depth)?;
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(Skip { reader: self.reader, depth })?;
        }
        Ok(())
    }
}
