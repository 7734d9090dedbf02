//! Parameters of operations, as the document tells them. Their names and limits are those of
//! [`crate::web::query`], which reads them.

use serde_json::Value;
use utoipa::openapi::{
    RefOr, Required, Schema,
    path::{ParameterBuilder, ParameterIn},
    schema::{ObjectBuilder, Type},
};

use super::schema;
use crate::web::query::{DEFAULT_PAGE_SIZE, PAGE_SIZE};

pub(super) const MAX_PAGE: usize = 200;

/// One parameter: in the path, in the query or a header.
#[derive(Clone, Debug)]
pub struct Parameter(pub(super) utoipa::openapi::path::Parameter);

impl Parameter {
    #[must_use]
    pub fn path(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        Self::new(ParameterIn::Path, Required::True, name, schema, description)
    }

    #[must_use]
    pub fn query(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        Self::new(ParameterIn::Query, Required::False, name, schema, description)
    }

    #[must_use]
    pub fn header(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        Self::new(ParameterIn::Header, Required::False, name, schema, description)
    }

    fn new(
        place: ParameterIn,
        required: Required,
        name: &str,
        schema: impl Into<RefOr<Schema>>,
        description: &str,
    ) -> Self {
        let parameter = ParameterBuilder::new()
            .parameter_in(place)
            .required(required)
            .name(name)
            .description(Some(description))
            .schema(Some(schema));
        Self(parameter.build())
    }

    #[must_use]
    pub fn required(mut self) -> Self {
        self.0.required = Required::True;
        self
    }

    #[must_use]
    pub fn example(self, example: impl Into<Value>) -> Self {
        Self(ParameterBuilder::from(self.0).example(Some(example.into())).build())
    }
}

pub(super) fn limit() -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(*PAGE_SIZE.start()))
        .maximum(Some(*PAGE_SIZE.end()))
        .default(Some(DEFAULT_PAGE_SIZE.into()));
    Parameter::query("limit", "How many entries a page has.", schema)
}

pub(super) fn cursor() -> Parameter {
    let description = "Where the page begins: from the link to the next page, which is the only source of \
        cursors. A cursor is bound to the filters of its list.";
    Parameter::query("cursor", description, schema::text())
}
