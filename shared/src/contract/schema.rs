//! Schemas of texts that are parsed by hand, for the document.

use utoipa::{
    ToSchema,
    openapi::{
        Ref, RefOr, Schema,
        schema::{ObjectBuilder, SchemaFormat, Type},
    },
};

/// Any text.
#[must_use]
pub fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// A text that the pattern matches.
#[must_use]
pub fn matching(pattern: &str, example: &str) -> RefOr<Schema> {
    text().pattern(Some(pattern)).examples([example]).into()
}

/// A text in one of the formats that JSON Schema knows: `uuid`, `date`, `date-time`.
#[must_use]
pub fn formatted(format: &str) -> RefOr<Schema> {
    text().format(Some(SchemaFormat::Custom(format.into()))).into()
}

/// A text that is one of these.
pub fn one_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> RefOr<Schema> {
    text().enum_values(Some(texts)).into()
}

/// The schema that the document has under the name of `T`: an operation's answer has to have it too.
#[must_use]
pub fn named<T: ToSchema>() -> RefOr<Schema> {
    Ref::from_schema_name(T::name()).into()
}

/// A text of 1 to `max` characters without control characters, and not of spaces only.
#[must_use]
pub fn visible(max: usize, example: &str) -> RefOr<Schema> {
    const PATTERN: &str =
        r"^[^\u0000-\u001F\u007F-\u009F]*[^\s\u0000-\u001F\u007F-\u009F][^\u0000-\u001F\u007F-\u009F]*$";
    text().min_length(Some(1)).max_length(Some(max)).pattern(Some(PATTERN)).examples([example]).into()
}
