//! What `set` and `create` are asked for, as it travels: a field for each row of the table of settings
//! ([`vz_types::settings`]), and what has no row. JSON and the API's document follow from the table.

use crate::wire::{SshKey, UserPasswd};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, MapAccess, Visitor},
};
use serde_json::json;
use std::{borrow::Cow, collections::BTreeMap, fmt};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, KnownFormat, ObjectBuilder, Ref, RefOr, Schema, SchemaFormat, Type,
        schema::{AdditionalProperties, SchemaType},
    },
};
use vz_types::settings::{self, SETTINGS, SSHKEY, Setting, Shape, USERPASSWD, Value};

/// What `set` is to change. Absent: unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// What the configuration keeps. What is no field of the others is looked for here, and refused if no row has it.
    #[serde(flatten)]
    pub values: Values,
    /// One for each `--userpasswd`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub userpasswd: Vec<UserPasswd>,
    /// One for each key of each `--sshkey`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sshkeys: Vec<SshKey>,
    /// Beancounters and other limits by the name of their option, as typed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
    /// The sample configuration whose limits and disk quota come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
    /// Forget maxheld and failcnt.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reset_ub: bool,
}

// What the API's document says about all of it, and about the fields that have no row.
const ALL: &str = "Everything `vzctl set` can change in this version. Absent: unchanged. Texts as on the command line; \
    vzd parses them.";
const LIMITS: &str = "Beancounters and other limits, by the name of their option (`physpages`, `ram`, `cpulimit`), each \
    as on the\ncommand line.";
const SAMPLE: &str = "A sample configuration to take limits and disk quota from, before everything else here.";
const RESET_UB: &str = "Forget maxheld and failcnt of every counter.";

/// Values of settings by the name of their row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Values(pub BTreeMap<&'static str, Value>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(Rows)
    }
}

/// Reads an object whose keys are names of rows.
struct Rows;

impl<'de> Visitor<'de> for Rows {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
        let mut out = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let Some(row) = settings::find(&name).filter(|row| row.slot.is_some()) else {
                let known: Vec<&str> = kept().map(|(row, _)| row.name).collect();
                return Err(A::Error::custom(format!("unknown field `{name}`, expected one of {}", known.join(", "))));
            };
            if out.insert(row.name, map.next_value_seed(Of(row))?).is_some() {
                return Err(A::Error::custom(format!("duplicate field `{name}`")));
            }
        }
        Ok(Values(out.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()))
    }
}

/// Reads the value of one row; null is none where the row allows it.
struct Of(&'static Setting);

impl<'de> DeserializeSeed<'de> for Of {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Option<Value>, D::Error> {
        let value = match self.0.slot.map(|slot| slot.shape()) {
            None => None,
            Some(Shape::Flag) => Option::deserialize(d)?.map(Value::Flag),
            Some(Shape::Number32) => Option::<u32>::deserialize(d)?.map(|n| Value::Number(n.into())),
            Some(Shape::Number64) => Option::deserialize(d)?.map(Value::Number),
            Some(Shape::Text) => Option::deserialize(d)?.map(Value::Text),
            Some(Shape::List) => Option::deserialize(d)?.map(Value::List),
            Some(Shape::Switches) => Option::deserialize(d)?.map(Value::Switches),
        };
        if value.is_none() && !self.0.how.is_nullable() {
            return Err(D::Error::custom(format!("`{}` cannot be null", self.0.name)));
        }
        Ok(value)
    }
}

/// The rows with a field here, with its type.
fn kept() -> impl Iterator<Item = (&'static Setting, Shape)> {
    SETTINGS.iter().filter_map(|row| Some((row, row.slot?.shape())))
}

impl PartialSchema for Settings {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let mut all = ObjectBuilder::new().description(Some(ALL));
        for (row, shape) in kept() {
            all = all.property(row.name, property(row, shape));
        }
        for (row, name) in [(USERPASSWD, UserPasswd::name()), (SSHKEY, SshKey::name())] {
            let list = ArrayBuilder::new().items(Ref::from_schema_name(name)).default(Some(json!([])));
            all = all.property(row.sent.unwrap_or(row.name), list.description(Some(row.api)));
        }
        let limits = text_map(text()).description(Some(LIMITS));
        let sample =
            text().schema_type(nullable(Type::String, true)).default(Some(json!(null))).description(Some(SAMPLE));
        let reset = ObjectBuilder::new().schema_type(Type::Boolean).default(Some(json!(false)));
        all.property("limits", limits)
            .property("sample", sample)
            .property("reset_ub", reset.description(Some(RESET_UB)))
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .into()
    }
}

impl ToSchema for Settings {
    fn name() -> Cow<'static, str> {
        "Settings".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((UserPasswd::name().into(), UserPasswd::schema()));
        schemas.push((SshKey::name().into(), SshKey::schema()));
    }
}

/// The schema of one row's field.
fn property(row: &Setting, shape: Shape) -> RefOr<Schema> {
    let null = row.how.is_nullable();
    let plain = |of: Type| {
        ObjectBuilder::new()
            .schema_type(nullable(of, null))
            .default(null.then_some(json!(null)))
            .description(Some(row.api))
    };
    let number =
        |format: KnownFormat| plain(Type::Integer).format(Some(SchemaFormat::KnownFormat(format))).minimum(Some(0));
    let text = || ObjectBuilder::new().schema_type(Type::String);
    match shape {
        Shape::Flag => plain(Type::Boolean).into(),
        Shape::Number32 => number(KnownFormat::Int32).into(),
        Shape::Number64 => number(KnownFormat::Int64).into(),
        Shape::Text => plain(Type::String).into(),
        Shape::List => ArrayBuilder::new()
            .schema_type(nullable(Type::Array, null))
            .items(text())
            .default(Some(if null { json!(null) } else { json!([]) }))
            .description(Some(row.api))
            .into(),
        Shape::Switches => text_map(ObjectBuilder::new().schema_type(Type::Boolean)).description(Some(row.api)).into(),
    }
}

/// An object whose keys are anything.
fn text_map(values: ObjectBuilder) -> ObjectBuilder {
    let names = Schema::Object(ObjectBuilder::new().schema_type(Type::String).build());
    ObjectBuilder::new().property_names(Some(names)).additional_properties(Some(values)).default(Some(json!({})))
}

fn nullable(of: Type, null: bool) -> SchemaType {
    if null { SchemaType::from_iter([of, Type::Null]) } else { SchemaType::new(of) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn every_row_is_a_field_that_is_read_as_it_is_written() {
        let document = serde_json::to_value(Settings::schema()).unwrap();
        for row in SETTINGS {
            let field = row.sent.unwrap_or(row.name);
            let of = &document["properties"][field];
            assert!(!of["description"].as_str().unwrap_or_default().is_empty(), "{field} is not in the document");
            if row.slot.is_none() {
                continue;
            }
            let value = row.parse(&[row.example.to_owned()]).unwrap();
            let asked = Settings { values: Values([(row.name, value)].into()), ..Settings::default() };
            let text = serde_json::to_string(&asked).unwrap();
            assert!(text.starts_with(&format!("{{\"{field}\":")), "{text}");
            assert_eq!(read(&text), Ok(asked));
            assert_eq!(read(&format!("{{\"{field}\":null}}")).is_ok(), row.how.is_nullable(), "{field}");
        }
    }

    #[test]
    fn what_is_no_setting_is_refused_by_name_with_its_place() {
        assert_eq!(read("{}"), Ok(Settings::default()));
        for (text, says) in [
            ("{\"onbot\":true}", "unknown field `onbot`"),
            ("{\"sshuser\":\"bob\"}", "unknown field `sshuser`"),
            ("{\"onboot\":\"yes\"}", "invalid type"),
            ("{\"bootorder\":4294967296}", "invalid value"),
            ("{\"bootorder\":-1}", "invalid value"),
            ("{\"nameserver\":\"10.0.0.1\"}", "invalid type"),
            ("{\"features\":{\"nesting\":\"on\"}}", "invalid type"),
            ("{\"onboot\":true,\"onboot\":false}", "duplicate field `onboot`"),
            ("{\"reset_ub\":1}", "invalid type"),
        ] {
            let e = read(text).unwrap_err();
            assert!(e.contains(says) && e.contains("at line 1 column"), "{text}: {e}");
        }
    }
}
