//! Values of settings: what they are in JSON ([`Value`]), and the types that know how a value is written ([`Word`]).

use crate::{Bytes, CtName, Hostname, IdCount, config::Description};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Display, str::FromStr};

/// A value as the API has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// yes or no.
    Flag(bool),
    /// A number.
    Number(u64),
    /// A text; empty: not set any more.
    Text(String),
    /// Texts.
    List(Vec<String>),
    /// Names that are on or off.
    Switches(BTreeMap<String, bool>),
}

impl std::fmt::Display for Value {
    /// As on a command line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let on = |b: bool| if b { "on" } else { "off" };
        match self {
            Self::Flag(yes) => f.write_str(if *yes { "yes" } else { "no" }),
            Self::Number(n) => n.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::List(texts) => f.write_str(&texts.join(",")),
            Self::Switches(all) => {
                f.write_str(&all.iter().map(|(name, b)| format!("{name}:{}", on(*b))).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// The type of a value in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `true` or `false`.
    Flag,
    /// A number of 32 bits.
    Number32,
    /// A number of 64 bits.
    Number64,
    /// A text.
    Text,
    /// An array of texts.
    List,
    /// An object of names with `true` or `false`.
    Switches,
}

impl Shape {
    /// The words in the documentation.
    pub fn words(self) -> &'static str {
        match self {
            Self::Flag => "boolean",
            Self::Number32 | Self::Number64 => "integer",
            Self::Text => "string",
            Self::List => "array of strings",
            Self::Switches => "object of booleans",
        }
    }
}

impl Value {
    /// Its type; a number alone does not say how large it may be.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Flag(_) => Shape::Flag,
            Self::Number(_) => Shape::Number64,
            Self::Text(_) => Shape::Text,
            Self::List(_) => Shape::List,
            Self::Switches(_) => Shape::Switches,
        }
    }

    /// What is said of a value of another type than `wanted`.
    pub(super) fn is_not(&self, wanted: Shape) -> String {
        format!("its value is of the type {}, not {}", wanted.words(), self.shape().words())
    }
}

/// A type one value of a setting can have.
pub trait Word: Clone + Send + Sync + Sized + 'static {
    /// Its type in the API.
    const SHAPE: Shape;

    /// From a word of the command line.
    ///
    /// # Errors
    /// Names the word and what is accepted.
    fn typed(text: &str) -> Result<Self, String>;

    /// From a value of the API.
    ///
    /// # Errors
    /// Names the value and what is accepted.
    fn sent(value: &Value) -> Result<Self, String>;

    /// As the API has it.
    fn value(&self) -> Value;
}

/// A text that fits into a message.
pub(super) fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// What `FromStr` makes of a text.
pub(super) fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: T::Err| e.to_string())
}

impl Word for bool {
    const SHAPE: Shape = Shape::Flag;

    fn typed(text: &str) -> Result<Self, String> {
        match text {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(format!("`{}` is not understood; write yes or no", short(text))),
        }
    }

    fn sent(value: &Value) -> Result<Self, String> {
        if let Value::Flag(flag) = value { Ok(*flag) } else { Err(value.is_not(Self::SHAPE)) }
    }

    fn value(&self) -> Value {
        Value::Flag(*self)
    }
}

/// Numbers, which the command line has as the API has them.
macro_rules! numbers {
    ($($ty:ident $shape:ident),+) => {$(
        impl Word for $ty {
            const SHAPE: Shape = Shape::$shape;

            fn typed(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("`{}` is not a number from 0 to {}", short(text), Self::MAX))
            }

            fn sent(value: &Value) -> Result<Self, String> {
                match value {
                    Value::Number(n) => Self::try_from(*n).map_err(|_| format!("{n} is above {}", Self::MAX)),
                    _ => Err(value.is_not(Self::SHAPE)),
                }
            }

            fn value(&self) -> Value {
                Value::Number((*self).into())
            }
        }
    )+};
}

numbers!(u32 Number32, u64 Number64);

impl Word for IdCount {
    const SHAPE: Shape = Shape::Number32;

    fn typed(text: &str) -> Result<Self, String> {
        text.parse::<u32>()
            .ok()
            .and_then(|n| Self::try_from(n).ok())
            .ok_or_else(|| format!("`{}` is not a multiple of 65536 up to {}, as 131072", short(text), Self::MAX))
    }

    fn sent(value: &Value) -> Result<Self, String> {
        match value {
            Value::Number(n) => u32::try_from(*n).map_err(|_| format!("{n} is above {}", Self::MAX))?.try_into(),
            _ => Err(value.is_not(Self::SHAPE)),
        }
    }

    fn value(&self) -> Value {
        Value::Number(self.get().into())
    }
}

/// Texts, which the command line has as the API has them.
macro_rules! texts {
    ($($ty:ident),+) => {$(
        impl Word for $ty {
            const SHAPE: Shape = Shape::Text;

            fn typed(text: &str) -> Result<Self, String> {
                parsed(text)
            }

            fn sent(value: &Value) -> Result<Self, String> {
                if let Value::Text(text) = value { parsed(text) } else { Err(value.is_not(Self::SHAPE)) }
            }

            fn value(&self) -> Value {
                Value::Text(self.to_string())
            }
        }
    )+};
}

texts!(CtName, Hostname, Description);

impl Word for Bytes {
    const SHAPE: Shape = Shape::Text;

    /// A bare number is KiB, as with vzctl; in the API and in files it is bytes.
    fn typed(text: &str) -> Result<Self, String> {
        let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let amount = if bare { format!("{text}K") } else { text.to_owned() };
        amount.parse().map_err(|_| {
            let shown = short(text);
            format!("`{shown}` is not a size; write a number with K, M, G or T like 10G (a bare number is KiB)")
        })
    }

    fn sent(value: &Value) -> Result<Self, String> {
        if let Value::Text(text) = value { parsed(text) } else { Err(value.is_not(Self::SHAPE)) }
    }

    fn value(&self) -> Value {
        Value::Text(self.to_string())
    }
}
