//! Whose an order is.

use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::contract::{schema, text};

/// The name of a customer: 1-64 visible characters, trimmed, in NFC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CustomerRef(String);

impl ToSchema for CustomerRef {}

impl PartialSchema for CustomerRef {
    fn schema() -> RefOr<Schema> {
        schema::visible(64, "C-1001")
    }
}

impl CustomerRef {
    pub const RULE: &'static str = "This must be 1 to 64 visible characters.";

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text::visible(text, 64).map(Self)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            drop(CustomerRef::parse(&text));
        }

        #[test]
        fn it_is_trimmed_and_stays_the_same(text in "\\PC{1,64}") {
            if let Some(parsed) = CustomerRef::parse(&text) {
                prop_assert!(parsed.as_str().chars().count() <= 64);
                prop_assert_eq!(CustomerRef::parse(parsed.as_str()), Some(parsed));
            }
        }
    }
}
