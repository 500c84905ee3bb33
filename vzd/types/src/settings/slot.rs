//! Where a configuration keeps the value of a setting, and how what is given changes what is there: one type for each
//! way of giving it. A row of the table names the field; type, key and checks follow from it.

use super::value::{Shape, Value, Word, parsed, short};
use crate::{CtAddr, CtConfig};
use std::{collections::BTreeMap, fmt::Display, str::FromStr, sync::Arc};

/// What one value changes.
#[derive(Clone)]
pub enum Change {
    /// The configuration.
    Config(Arc<dyn Fn(&mut CtConfig) + Send + Sync>),
    /// The list of addresses, of the configuration and of the running container each.
    Addresses(AddressChange),
}

/// What becomes of a list of addresses. Removal comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressChange {
    /// Remove every address.
    pub clear: bool,
    /// Addresses to remove.
    pub remove: Vec<CtAddr>,
    /// Addresses to add.
    pub add: Vec<CtAddr>,
}

/// Where a value is kept.
pub trait Slot: Sync {
    /// The key in the configuration file.
    fn key(&self) -> &'static str;

    /// The type of its value in the API.
    fn shape(&self) -> Shape;

    /// The value that the words behind an option mean, one for each time it was given.
    ///
    /// # Errors
    /// Names the words and what is accepted.
    fn typed(&self, given: &[String]) -> Result<Value, String>;

    /// What a value changes.
    ///
    /// # Errors
    /// Names the value and what is accepted.
    fn change(&self, value: &Value) -> Result<Change, String>;

    /// What is there; nothing where it is not set.
    fn get(&self, config: &CtConfig) -> Option<Value>;
}

/// A field of the configuration.
pub struct At<T: 'static> {
    /// Its key in the file.
    pub key: &'static str,
    /// To read.
    pub of: fn(&CtConfig) -> &T,
    /// To write.
    pub of_mut: fn(&mut CtConfig) -> &mut T,
}

/// The field of this path; its key in the file is the same.
macro_rules! at {
    ($($path:ident).+) => {
        $crate::settings::slot::At { key: stringify!($($path).+), of: |c| &c.$($path).+, of_mut: |c| &mut c.$($path).+ }
    };
}
pub(super) use at;

impl<T: Clone + Send + Sync> At<T> {
    fn becomes(&self, value: T) -> Change {
        let of_mut = self.of_mut;
        Change::Config(Arc::new(move |c| of_mut(c).clone_from(&value)))
    }
}

fn last(given: &[String]) -> &str {
    given.last().map_or("", String::as_str)
}

/// A field that always has a value.
pub struct Always<T: 'static>(pub At<T>);

impl<T: Word> Slot for Always<T> {
    fn key(&self) -> &'static str {
        self.0.key
    }
    fn shape(&self) -> Shape {
        T::SHAPE
    }
    fn typed(&self, given: &[String]) -> Result<Value, String> {
        T::typed(last(given)).map(|t| t.value())
    }
    fn change(&self, value: &Value) -> Result<Change, String> {
        T::sent(value).map(|t| self.0.becomes(t))
    }
    fn get(&self, config: &CtConfig) -> Option<Value> {
        Some((self.0.of)(config).value())
    }
}

/// The same, given as one figure or as the classic `SOFT:HARD`, of which the hard one holds: there is no grace period.
pub struct Quota<T: 'static>(pub Always<T>);

impl<T: Word> Slot for Quota<T> {
    fn key(&self) -> &'static str {
        self.0.key()
    }
    fn shape(&self) -> Shape {
        self.0.shape()
    }
    fn typed(&self, given: &[String]) -> Result<Value, String> {
        let all = last(given);
        let figures = all.splitn(2, ':').map(T::typed).collect::<Result<Vec<_>, _>>();
        // All of it is named, not the one figure.
        let figures = figures.map_err(|why| T::typed(all).err().unwrap_or(why))?;
        figures.last().map(Word::value).ok_or_else(|| "it is empty".to_owned())
    }
    fn change(&self, value: &Value) -> Result<Change, String> {
        self.0.change(value)
    }
    fn get(&self, config: &CtConfig) -> Option<Value> {
        self.0.get(config)
    }
}

/// A field that may have no value.
pub struct Optional<T: 'static>(pub At<Option<T>>);

impl<T: Word> Slot for Optional<T> {
    fn key(&self) -> &'static str {
        self.0.key
    }
    fn shape(&self) -> Shape {
        T::SHAPE
    }
    fn typed(&self, given: &[String]) -> Result<Value, String> {
        T::typed(last(given)).map(|t| t.value())
    }
    fn change(&self, value: &Value) -> Result<Change, String> {
        match value {
            Value::Text(text) if text.is_empty() => Ok(self.0.becomes(None)),
            value => T::sent(value).map(|t| self.0.becomes(Some(t))),
        }
    }
    fn get(&self, config: &CtConfig) -> Option<Value> {
        (self.0.of)(config).as_ref().map(Word::value)
    }
}

/// A list of which all is given at once; one empty text is the empty list.
pub struct Every<T: 'static>(pub At<Vec<T>>);

impl<T: FromStr<Err: Display> + Display + Clone + Send + Sync> Slot for Every<T> {
    fn key(&self) -> &'static str {
        self.0.key
    }
    fn shape(&self) -> Shape {
        Shape::List
    }
    fn typed(&self, given: &[String]) -> Result<Value, String> {
        words(given, |word| parsed::<T>(word).map(|t| t.to_string())).map(Value::List)
    }
    fn change(&self, value: &Value) -> Result<Change, String> {
        let texts = texts(value)?.filter(|t| !t.is_empty());
        texts.map(|t| parsed(t)).collect::<Result<_, _>>().map(|all| self.0.becomes(all))
    }
    fn get(&self, config: &CtConfig) -> Option<Value> {
        listed((self.0.of)(config))
    }
}

/// The container's addresses, which are added and removed one by one.
pub enum Addresses {
    /// Given to be added.
    Added,
    /// Given to be removed; `all` stands for every one.
    Removed,
}

impl Addresses {
    fn one(&self, text: &str) -> Result<CtAddr, String> {
        parsed(text).map_err(|why: String| match self {
            Self::Added => why,
            Self::Removed => format!("{why}; write one of the CT's addresses, or all"),
        })
    }
}

impl Slot for Addresses {
    fn key(&self) -> &'static str {
        at!(network.ip).key
    }
    fn shape(&self) -> Shape {
        Shape::List
    }
    fn typed(&self, given: &[String]) -> Result<Value, String> {
        let one = |word: &str| match (self, word) {
            (Self::Removed, "all") => Ok(word.to_owned()),
            _ => self.one(word).map(|ip| ip.to_string()),
        };
        words(given, one).map(Value::List)
    }
    fn change(&self, value: &Value) -> Result<Change, String> {
        let mut change = AddressChange::default();
        for text in texts(value)? {
            match (self, text) {
                (Self::Removed, "all") => change.clear = true,
                (Self::Removed, text) => change.remove.push(self.one(text)?),
                (Self::Added, text) => change.add.push(self.one(text)?),
            }
        }
        Ok(Change::Addresses(change))
    }
    fn get(&self, config: &CtConfig) -> Option<Value> {
        match self {
            Self::Added => listed((at!(network.ip).of)(config)),
            Self::Removed => None,
        }
    }
}

/// A list of names that are switched on and off one by one.
pub struct Switched<T: 'static>(pub At<Vec<T>>);

impl<T: FromStr<Err: Display> + Display + Ord + Clone + Send + Sync> Slot for Switched<T> {
    fn key(&self) -> &'static str {
        self.0.key
    }
    fn shape(&self) -> Shape {
        Shape::Switches
    }
    fn typed(&self, given: &[String]) -> Result<Value, String> {
        let mut out = BTreeMap::new();
        for one in given.iter().flat_map(|g| g.split(',')) {
            let (name, on) = match one.split_once(':') {
                Some((name, "on")) => (name, true),
                Some((name, "off")) => (name, false),
                _ => return Err(format!("`{}` is not of the form NAME:on or NAME:off", short(one))),
            };
            out.insert(parsed::<T>(name)?.to_string(), on);
        }
        Ok(Value::Switches(out))
    }
    fn change(&self, value: &Value) -> Result<Change, String> {
        let Value::Switches(names) = value else { return Err(value.is_not(Shape::Switches)) };
        let switches =
            names.iter().map(|(n, on)| parsed(n).map(|t| (t, *on))).collect::<Result<BTreeMap<T, bool>, _>>()?;
        let of_mut = self.0.of_mut;
        Ok(Change::Config(Arc::new(move |c| {
            let there = of_mut(c);
            for (name, on) in &switches {
                there.retain(|n| n != name);
                there.extend(on.then(|| name.clone()));
            }
        })))
    }
    fn get(&self, config: &CtConfig) -> Option<Value> {
        let on = (self.0.of)(config);
        (!on.is_empty()).then(|| Value::Switches(on.iter().map(|n| (n.to_string(), true)).collect()))
    }
}

/// Every blank-separated word of every occurrence.
fn words(given: &[String], one: impl Fn(&str) -> Result<String, String>) -> Result<Vec<String>, String> {
    let of = |given: &String| match given.split_whitespace().collect::<Vec<_>>().as_slice() {
        // Blanks alone are a mistake, not an empty list.
        [] if !given.is_empty() => one(given).map(|only| vec![only]),
        words => words
            .iter()
            .map(|word| one(word))
            .collect::<Result<Vec<_>, _>>()
            // The whole argument is named, not the word that happened to be looked at first.
            .map_err(|why| one(given).err().unwrap_or(why)),
    };
    given.iter().map(of).collect::<Result<Vec<_>, _>>().map(|lists| lists.concat())
}

fn texts(value: &Value) -> Result<impl Iterator<Item = &str>, String> {
    if let Value::List(all) = value { Ok(all.iter().map(String::as_str)) } else { Err(value.is_not(Shape::List)) }
}

fn listed<T: Display>(all: &[T]) -> Option<Value> {
    (!all.is_empty()).then(|| Value::List(all.iter().map(ToString::to_string).collect()))
}
