//! Objects are read from objects only.
//!
//! What serde derives for a struct also takes a sequence, its elements in the order of the members; JSON's schemas do not.
//! [`ObjectsOnly`] around a deserializer refuses such a sequence, at every depth that is read directly. (What serde keeps in
//! between first, as for an untagged enumeration, it reads past this.)
//!
//! A whole number beyond 64 bits is refused, too: it could only be kept as another, and be given again as something that is no
//! integer to everybody.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};

/// A deserializer, or a part of one, whose structs are read from objects only.
pub(crate) struct ObjectsOnly<T>(pub(crate) T);

/// A visitor; of a struct if `OBJECT`.
struct Visiting<V, const OBJECT: bool>(V);

macro_rules! forward {
    ($($method:ident($($argument:ident: $kind:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($argument,)* Visiting::<V, false>(visitor))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ObjectsOnly<D> {
    type Error = D::Error;

    forward! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(length: usize);
        deserialize_tuple_struct(name: &'static str, length: usize);
        deserialize_map();
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        members: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, members, Visiting::<V, true>(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($kind:ty);)*) => {$(
        fn $method<E: Error>(self, value: $kind) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>, const OBJECT: bool> Visitor<'de> for Visiting<V, OBJECT> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    visit! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_char(char);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        // Within 64 bits a whole number comes as an integer, unless it is written with a fraction or an exponent.
        if value.fract() == 0.0 && (value <= INTEGERS_BEGIN || value >= INTEGERS_END) {
            return Err(E::invalid_value(Unexpected::Float(value), &"a whole number of 64 bits at most"));
        }
        self.0.visit_f64(value)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(ObjectsOnly(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(ObjectsOnly(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        if OBJECT {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        self.0.visit_seq(ObjectsOnly(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(ObjectsOnly(members))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(ObjectsOnly(data))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for ObjectsOnly<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(ObjectsOnly(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for ObjectsOnly<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(ObjectsOnly(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for ObjectsOnly<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(ObjectsOnly(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for ObjectsOnly<A> {
    type Error = A::Error;
    type Variant = ObjectsOnly<A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self::Variant), A::Error> {
        self.0.variant_seed(seed).map(|(name, content)| (name, ObjectsOnly(content)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for ObjectsOnly<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.0.newtype_variant_seed(ObjectsOnly(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(length, Visiting::<V, false>(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        members: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(members, Visiting::<V, true>(visitor))
    }
}

/// -2^63, which itself comes as an integer.
const INTEGERS_BEGIN: f64 = -9_223_372_036_854_775_808.0;
/// 2^64.
const INTEGERS_END: f64 = 18_446_744_073_709_551_616.0;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};

    use crate::extract::parse_json;

    #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
    struct Inner {
        number: i64,
        #[serde(default)]
        text: Option<String>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Choice {
        Nothing,
        One(Inner),
        Two(i64, i64),
        Named { inner: Inner },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Outer {
        one: Inner,
        #[serde(default)]
        some: Option<Inner>,
        list: Vec<Inner>,
        map: BTreeMap<String, Inner>,
        pair: (u8, f64),
        choices: Vec<Choice>,
        #[serde(flatten)]
        rest: serde_json::Map<String, Value>,
    }

    fn outer() -> Value {
        json!({
            "one": {"number": -1, "text": "a"}, "some": {"number": 2}, "list": [{"number": 3}],
            "map": {"key": {"number": 4}}, "pair": [5, 0.5],
            "choices": ["Nothing", {"One": {"number": 6}}, {"Two": [7, 8]}, {"Named": {"inner": {"number": 9}}}],
            "further": [{"deep": null}, true],
        })
    }

    #[test]
    fn an_array_in_the_place_of_an_object_is_refused_at_every_depth() {
        assert!(parse_json::<Outer>(outer().to_string().as_bytes()).is_ok());
        assert!(parse_json::<Inner>(b"[1]").is_err() && parse_json::<Inner>(b"[1,\"a\"]").is_err());
        for pointer in ["/one", "/some", "/list/0", "/map/key", "/choices/1/One", "/choices/3/Named"] {
            let mut broken = outer();
            *broken.pointer_mut(pointer).unwrap() = json!([3, "a"]);
            let problem = parse_json::<Outer>(broken.to_string().as_bytes()).unwrap_err();
            assert!(problem.has_cause(crate::cause::MANDATORY_IE_INCORRECT), "{pointer}: {problem:?}");
        }
    }

    #[test]
    fn what_is_in_its_place_is_read_as_ever() {
        let text = outer().to_string();
        let read: Outer = parse_json(text.as_bytes()).unwrap();
        assert_eq!(read, serde_json::from_str::<Outer>(&text).unwrap());
        assert_eq!(parse_json::<(u8, u8)>(b"[1,2]").unwrap(), (1, 2), "a tuple is an array");
    }

    #[test]
    fn a_whole_number_beyond_64_bits_is_refused_wherever_it_would_be_kept() {
        for number in ["18446744073709551616", "-103177014085549680000000000000000000", "1e300", "-9223372036854775809"]
        {
            for text in [number.to_owned(), format!("[{{\"a\": {number}}}]"), format!("{{\"a\": [{number}]}}")] {
                let problem = parse_json::<Value>(text.as_bytes()).unwrap_err();
                assert!(problem.has_cause(crate::cause::MANDATORY_IE_INCORRECT), "{text}: {problem:?}");
            }
            let mut further = outer().to_string();
            further.insert_str(1, &format!("\"other\": {{\"deep\": {number}}},"));
            assert!(parse_json::<Outer>(further.as_bytes()).is_err(), "{further}");
        }
        for number in ["18446744073709551615", "-9223372036854775808", "1.5", "1e10", "-0.0", "1e-300"] {
            assert_eq!(parse_json::<Value>(number.as_bytes()).unwrap(), serde_json::from_str::<Value>(number).unwrap());
        }
    }

    proptest! {
        #[test]
        fn any_value_is_read_as_it_is(number in any::<i64>(), text in any::<Option<String>>(), list in prop::collection::vec(-1e18..1e18, 0..10)) {
            let value = json!({"number": number, "text": text, "list": list});
            let octets = value.to_string();
            prop_assert_eq!(parse_json::<Value>(octets.as_bytes()).unwrap(), serde_json::from_str::<Value>(&octets).unwrap());
            prop_assert_eq!(parse_json::<Inner>(octets.as_bytes()).unwrap(), Inner { number, text });
        }
    }
}
