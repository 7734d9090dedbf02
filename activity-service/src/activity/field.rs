//! A field of a message of which nothing is known yet: a value of a wrong type, or a number that no type of ours
//! holds, is not an error of the JSON reader, so that the other fields are read all the same.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// None where it is missing or null.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Field<'a>(#[serde(borrow)] Option<&'a RawValue>);

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Field<'a> {
    pub(super) fn is_missing(&self) -> bool {
        self.0.is_none()
    }

    /// None where it is no text.
    ///
    /// # Errors
    /// It is one that cannot be decoded: half a surrogate pair.
    pub(super) fn as_text(&self) -> Result<Option<Cow<'a, str>>, serde_json::Error> {
        let text = self.0.map(RawValue::get).filter(|raw| raw.starts_with('"'));
        text.map(serde_json::from_str::<Text<'a>>).transpose().map(|text| text.map(|text| text.0))
    }
}
