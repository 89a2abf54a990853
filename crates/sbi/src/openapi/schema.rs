//! Schemas: what a member may hold, and the Rust type that reads and writes it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::probe::{Probe, member_names};
use crate::extract::parse_json;
use crate::problem::{ProblemDetails, cause};

/// What a JSON value may be. A named one becomes a component of the document.
#[derive(Debug, Clone)]
pub struct Schema {
    pub(super) name: Option<&'static str>,
    pub(super) kind: Kind,
    pub(super) nullable: bool,
    pub(super) probe: Option<Probe>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Text {
        pattern: Option<&'static str>,
        format: Option<&'static str>,
        length_max: Option<usize>,
        example: &'static str,
    },
    /// An enumeration, and whether it is open to values of later releases.
    Enumeration {
        values: &'static [&'static str],
        open: bool,
    },
    Integer {
        minimum: Option<i64>,
        example: i64,
    },
    Number,
    Boolean,
    List {
        items: Box<Schema>,
        min: usize,
        max: Option<usize>,
    },
    Map(Box<Schema>),
    Object {
        members: Vec<Member>,
        exactly_one: Vec<&'static str>,
        at_least_one: Vec<&'static str>,
        /// Members that it does not name are kept, and sent as they came.
        keeps_others: bool,
    },
    OneOf(Vec<Schema>),
    /// Kept as it came.
    Any,
}

/// A member of an object.
#[derive(Debug, Clone)]
pub struct Member {
    pub(super) name: &'static str,
    pub(super) schema: Schema,
    pub(super) required: bool,
}

/// A member that must be there.
pub(super) fn required(name: &'static str, schema: Schema) -> Member {
    Member { name, schema, required: true }
}

/// A member that may be absent.
pub(super) fn optional(name: &'static str, schema: Schema) -> Member {
    Member { name, schema, required: false }
}

/// Text of any form.
pub(super) fn text(example: &'static str) -> Schema {
    Kind::Text { pattern: None, format: None, length_max: None, example }.into()
}

/// Text that the pattern describes.
pub(super) fn pattern(pattern: &'static str, example: &'static str) -> Schema {
    Kind::Text { pattern: Some(pattern), format: None, length_max: None, example }.into()
}

/// Text in one of the formats that OpenAPI or JSON Schema name.
pub(super) fn format(format: &'static str, example: &'static str) -> Schema {
    Kind::Text { pattern: None, format: Some(format), length_max: None, example }.into()
}

/// Printable ASCII without space of at most that many octets.
pub(super) fn visible(length_max: usize, example: &'static str) -> Schema {
    Kind::Text { pattern: Some("^[!-~]+$"), format: None, length_max: Some(length_max), example }.into()
}

/// An enumeration that later releases may extend.
pub(super) fn open_enumeration(values: &'static [&'static str]) -> Schema {
    Kind::Enumeration { values, open: true }.into()
}

/// An enumeration that refuses any other value.
pub(super) fn closed_enumeration(values: &'static [&'static str]) -> Schema {
    Kind::Enumeration { values, open: false }.into()
}

/// A whole number.
pub(super) fn integer(example: i64) -> Schema {
    Kind::Integer { minimum: None, example }.into()
}

/// A whole number, not below zero.
pub(super) fn unsigned(example: i64) -> Schema {
    Kind::Integer { minimum: Some(0), example }.into()
}

pub(super) fn number() -> Schema {
    Kind::Number.into()
}

pub(super) fn boolean() -> Schema {
    Kind::Boolean.into()
}

/// A list that may be empty.
pub(super) fn list(items: Schema) -> Schema {
    Kind::List { items: Box::new(items), min: 0, max: None }.into()
}

/// A list of at least one element.
pub(super) fn list_of_some(items: Schema) -> Schema {
    Kind::List { items: Box::new(items), min: 1, max: None }.into()
}

/// An object whose member names the sender chooses.
pub(super) fn map(values: Schema) -> Schema {
    Kind::Map(Box::new(values)).into()
}

/// Any JSON value, kept as it came.
pub(super) fn any() -> Schema {
    Kind::Any.into()
}

/// An object. Members that it does not name are ignored.
pub(super) fn object(name: &'static str, members: Vec<Member>) -> Schema {
    let kind = Kind::Object { members, exactly_one: Vec::new(), at_least_one: Vec::new(), keeps_others: false };
    Schema { name: Some(name), ..kind.into() }
}

/// One of several schemas.
pub(super) fn one_of(schemas: Vec<Schema>) -> Schema {
    Kind::OneOf(schemas).into()
}

impl From<Kind> for Schema {
    fn from(kind: Kind) -> Self {
        Self { name: None, kind, nullable: false, probe: None }
    }
}

impl Schema {
    /// Makes it a component of that name.
    pub(super) fn named(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// `null` is a value of it, too.
    pub(super) fn or_null(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// Exactly one of these members must be there.
    pub(super) fn exactly_one(mut self, names: &[&'static str]) -> Self {
        if let Kind::Object { exactly_one, .. } = &mut self.kind {
            exactly_one.extend(names);
        }
        self
    }

    /// One of these members must be there, or several.
    pub(super) fn at_least_one(mut self, names: &[&'static str]) -> Self {
        if let Kind::Object { at_least_one, .. } = &mut self.kind {
            at_least_one.extend(names);
        }
        self
    }

    /// Members that it does not name are kept.
    pub(super) fn keeping_others(mut self) -> Self {
        if let Kind::Object { keeps_others, .. } = &mut self.kind {
            *keeps_others = true;
        }
        self
    }

    pub(super) fn up_to(mut self, count: usize) -> Self {
        if let Kind::List { max, .. } = &mut self.kind {
            *max = Some(count);
        }
        self
    }

    /// `T` is what the handlers read and write it with.
    pub(super) fn of<T: DeserializeOwned + Serialize>(mut self) -> Self {
        self.probe = Some(Probe {
            type_name: std::any::type_name::<T>(),
            reads: |text| {
                let value: T = parse_json(text)?;
                serde_json::to_value(&value).map(Some).map_err(|_| ProblemDetails::internal())
            },
            members: member_names::<T>,
        });
        self
    }

    /// As [`Schema::of`], for a type whose readers check besides what serde cannot say.
    pub(super) fn of_checked<T: DeserializeOwned + Serialize + WellFormed>(mut self) -> Self {
        self.probe = Some(Probe {
            type_name: std::any::type_name::<T>(),
            reads: |text| {
                let value: T = parse_json(text)?;
                if !value.is_well_formed() {
                    return Err(ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT));
                }
                serde_json::to_value(&value).map(Some).map_err(|_| ProblemDetails::internal())
            },
            members: member_names::<T>,
        });
        self
    }

    /// A value with every member, or with the mandatory ones alone.
    #[must_use]
    pub fn example(&self, whole: bool) -> Value {
        match &self.kind {
            Kind::Text { example, .. } => json!(example),
            Kind::Enumeration { values, .. } => json!(values.first().copied().unwrap_or_default()),
            Kind::Integer { example, .. } => json!(example),
            Kind::Number => json!(0.5),
            Kind::Boolean => json!(false),
            Kind::List { items, .. } => json!([items.example(whole)]),
            Kind::Map(values) => json!({"relation": values.example(whole)}),
            Kind::OneOf(schemas) => schemas.first().map_or(Value::Null, |schema| schema.example(whole)),
            Kind::Any => json!("as it came"),
            Kind::Object { members, exactly_one, at_least_one, .. } => {
                let chosen = exactly_one.first();
                let there = members.iter().filter(|member| {
                    if exactly_one.contains(&member.name) {
                        chosen == Some(&member.name)
                    } else {
                        whole || member.required || at_least_one.first() == Some(&member.name)
                    }
                });
                Value::Object(there.map(|member| (member.name.to_owned(), member.schema.example(whole))).collect())
            }
        }
    }

    /// The schema as OpenAPI 3.0 has it; named ones go into `components` and become references.
    pub(super) fn render(&self, components: &mut Map<String, Value>) -> Value {
        let Some(name) = self.name else { return self.rendered(components) };
        if !components.contains_key(name) {
            // Holds the place: what it refers to is rendered meanwhile.
            components.insert(name.to_owned(), Value::Null);
            let rendered = self.rendered(components);
            components.insert(name.to_owned(), rendered);
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    fn rendered(&self, components: &mut Map<String, Value>) -> Value {
        let mut rendered = match &self.kind {
            Kind::Text { pattern, format, length_max, example } => {
                let mut text = json!({"type": "string", "example": example});
                set(&mut text, "pattern", pattern.map(Value::from));
                set(&mut text, "format", format.map(Value::from));
                set(&mut text, "maxLength", length_max.map(Value::from));
                text
            }
            Kind::Enumeration { values, open: true } => {
                json!({"anyOf": [{"type": "string", "enum": values}, {"type": "string"}]})
            }
            Kind::Enumeration { values, open: false } => json!({"type": "string", "enum": values}),
            Kind::Integer { minimum, example } => {
                let mut integer = json!({"type": "integer", "example": example});
                set(&mut integer, "minimum", minimum.map(Value::from));
                integer
            }
            Kind::Number => json!({"type": "number"}),
            Kind::Boolean => json!({"type": "boolean"}),
            Kind::List { items, min, max } => {
                let mut list = json!({"type": "array", "items": items.render(components)});
                set(&mut list, "minItems", (*min > 0).then(|| Value::from(*min)));
                set(&mut list, "maxItems", max.map(Value::from));
                list
            }
            Kind::Map(values) => json!({"type": "object", "additionalProperties": values.render(components)}),
            Kind::OneOf(schemas) => {
                json!({"oneOf": schemas.iter().map(|schema| schema.render(components)).collect::<Vec<_>>()})
            }
            Kind::Any => json!({}),
            Kind::Object { members, exactly_one, at_least_one, keeps_others } => {
                let mut properties = Map::new();
                for member in members {
                    properties.insert(member.name.to_owned(), member.schema.render(components));
                }
                let mut object = json!({"type": "object", "properties": properties});
                let names: Vec<_> = members.iter().filter(|member| member.required).map(|member| member.name).collect();
                set(&mut object, "required", (!names.is_empty()).then(|| names.into()));
                let one: Vec<_> = exactly_one.iter().map(|name| json!({"required": [name]})).collect();
                set(&mut object, "oneOf", (!one.is_empty()).then(|| one.into()));
                let some: Vec<_> = at_least_one.iter().map(|name| json!({"required": [name]})).collect();
                set(&mut object, "anyOf", (!some.is_empty()).then(|| some.into()));
                set(&mut object, "additionalProperties", keeps_others.then(|| true.into()));
                object
            }
        };
        set(&mut rendered, "nullable", self.nullable.then(|| true.into()));
        rendered
    }
}

/// What holds of a value that can be read, and is checked where it is used.
pub(super) trait WellFormed {
    fn is_well_formed(&self) -> bool;
}

fn set(object: &mut Value, name: &str, value: Option<Value>) {
    if let (Value::Object(members), Some(value)) = (object, value) {
        members.insert(name.to_owned(), value);
    }
}
