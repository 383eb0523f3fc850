//! Values that are text outside and checked once, at the edge.

use std::fmt::{Debug, Display};
use std::str::FromStr;

/// A validated text: what parses is valid for as long as it lives.
///
/// One [`PATTERN`](Text::PATTERN) feeds the parser, the schema in the OpenAPI specification and the error that a person
/// reads, so the three cannot disagree.
pub trait Text: FromStr<Err = InvalidText> + Display + AsRef<str> + Clone + Debug + Send + Sync + 'static {
    /// The name of the schema in the specification, `ImageName`.
    const NAME: &'static str;
    /// What it is called in an error, `image name`.
    const WHAT: &'static str;
    /// The rule as a regular expression that holds the whole text, in the dialect that ECMA-262 and Rust share. (`\s` is the
    /// same in both only beside U+0085, which is no space to ECMA-262, and U+FEFF, which is none to Rust.)
    const PATTERN: &'static str;
    /// A value that follows the rule.
    const EXAMPLE: &'static str;
    /// The most characters, where the pattern does not say: to count thousands is more than a regular expression does
    /// quickly.
    const MAX_CHARS: Option<usize> = None;
    /// The rule in words, where the pattern is hard to read: `must be …`.
    const RULE: Option<&'static str> = None;
    /// Every value, where the type is a closed list of words; the pattern then only shows it to people.
    const WORDS: &'static [&'static str] = &[];
}

/// A text that is not what it should be; says the rule and never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {}", self.rule())]
pub struct InvalidText {
    /// What was expected, `image name`.
    pub what: &'static str,
    pattern: &'static str,
    words: Option<&'static str>,
}

impl InvalidText {
    /// A text that is no `T`.
    pub const fn of<T: Text>() -> Self {
        Self { what: T::WHAT, pattern: T::PATTERN, words: T::RULE }
    }

    /// The refusal of what is no text at all outside.
    pub(crate) const fn other(what: &'static str, words: &'static str) -> Self {
        Self { what, pattern: "", words: Some(words) }
    }

    /// The rule that it breaks: `must match …`.
    pub fn rule(&self) -> String {
        self.words.map_or_else(|| format!("must match {}", self.pattern), str::to_owned)
    }
}

macro_rules! text {
    (
        $(#[$doc:meta])* $name:ident, $what:literal, $pattern:literal, $example:literal
        $(, $max:literal characters, $rule:literal)?
    ) => {
        #[doc = concat!($what, ", matching `", $pattern, "`.")]
        #[doc = ""]
        $(#[$doc])*
        #[derive(
            Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            sea_orm::DeriveValueType, serde::Serialize, serde::Deserialize,
        )]
        #[sea_orm(value_type = "String")]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $crate::model::Text for $name {
            const NAME: &'static str = stringify!($name);
            const WHAT: &'static str = $what;
            const PATTERN: &'static str = $pattern;
            const EXAMPLE: &'static str = $example;
            $(
                const MAX_CHARS: Option<usize> = Some($max);
                const RULE: Option<&'static str> = Some($rule);
            )?
        }

        impl std::str::FromStr for $name {
            type Err = $crate::model::InvalidText;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                static RULE: std::sync::LazyLock<regex::Regex> =
                    std::sync::LazyLock::new(|| regex::Regex::new($pattern).expect("the pattern is a constant"));
                let fits = <Self as $crate::model::Text>::MAX_CHARS.is_none_or(|max| text.chars().nth(max).is_none());
                if fits && RULE.is_match(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err($crate::model::InvalidText::of::<Self>())
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $crate::model::InvalidText;

            fn try_from(text: &str) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::model::InvalidText;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

/// A closed list of words: an enum whose text forms parse, print, serialise and stand in a column.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            sea_orm::DeriveValueType, serde::Serialize, serde::Deserialize,
        )]
        #[sea_orm(value_type = "String")]
        #[serde(try_from = "String", into = "String")]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
        }

        impl $name {
            /// Every value, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it, as clients and the database see it.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::model::InvalidText;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|value| value.word() == text)
                    .ok_or($crate::model::InvalidText::of::<Self>())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.word()
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::model::InvalidText;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.word().to_owned()
            }
        }

        impl $crate::model::Text for $name {
            const NAME: &'static str = stringify!($name);
            const WHAT: &'static str = $what;
            const PATTERN: &'static str = concat!("^(", words!(@join $($word)+), ")$");
            const EXAMPLE: &'static str = words!(@first $($word)+);
            const WORDS: &'static [&'static str] = &[$($word),+];
        }
    };
    (@join $first:literal $($rest:literal)*) => { concat!($first, $("|", $rest),*) };
    (@first $first:literal $($rest:literal)*) => { $first };
}

pub(crate) use {text, words};
