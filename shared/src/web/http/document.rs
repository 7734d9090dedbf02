//! The OpenAPI document of an API: what its operations say, and what all of them have in common.

use std::{collections::BTreeMap, time::Duration};

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ComponentsBuilder, ContactBuilder, Content, Header, HeaderBuilder, Info, License, OpenApi, OpenApiBuilder,
        PathItem, PathsBuilder, Ref, Response, ResponseBuilder, Server, Tag,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::TagBuilder,
    },
};

use super::{
    api::Api,
    channel::CONTACT,
    operation::{BEARER, header_ref},
};
use crate::web::problem::{self, Problem, ProblemKind, Violation};

const CHALLENGE: &str = "`Bearer`; of a 403 for a missing scope with `error` and `scope`, as RFC 6750 has them.";
const TOKEN: &str = "RS256, ES256 or EdDSA, with `iss`, `aud`, `exp` and `sub`; its scopes stand in `scope`, separated \
    by spaces. A token with a `customerRef` sees and places the orders of that customer only.";

impl Api {
    #[must_use]
    pub fn document(&self) -> OpenApi {
        let mut components = ComponentsBuilder::new()
            .security_scheme(BEARER, bearer())
            .header("X-Request-Id", header("Names this request in the log: the caller's own name, where it sent one."))
            .header("Retry-After", header("After how many seconds to ask again."))
            .header("WWW-Authenticate", header(CHALLENGE))
            .schema(problem::ProblemBody::name(), problem::ProblemBody::schema())
            .schema(ProblemKind::name(), ProblemKind::schema())
            .schema(Violation::name(), Violation::schema());
        let mut items = BTreeMap::<_, PathItem>::new();
        for section in &self.sections {
            for operation in &section.operations {
                let mut entry = operation.entry.clone();
                entry.tags = Some(vec![section.name.into()]);
                let item = PathItem::new(operation.in_document(), entry);
                items.entry(operation.path).or_default().merge_operations(item);
                components = components.schemas_from_iter(operation.schemas.clone());
            }
        }
        for (problem, headers) in problems() {
            components = components.response(problem.status().as_str(), response(&problem, headers));
        }
        let mut info = Info::new(self.title, env!("CARGO_PKG_VERSION"));
        info.description = Some(self.description.into());
        info.contact = Some(ContactBuilder::new().name(Some(CONTACT)).build());
        let mut license = License::new(env!("CARGO_PKG_LICENSE"));
        license.identifier = Some(env!("CARGO_PKG_LICENSE").into());
        info.license = Some(license);
        OpenApiBuilder::new()
            .info(info)
            // Relative to the document, so that it is right behind a path prefix too.
            .servers(Some([Server::new(".")]))
            .tags(Some(self.sections.iter().map(|section| tag(section.name, section.description))))
            .paths(items.into_iter().fold(PathsBuilder::new(), |paths, (path, item)| paths.path(path, item)))
            .components(Some(components.build()))
            .build()
    }
}

/// Every problem that an operation may name, with the headers that come with it.
fn problems() -> [(Problem, &'static [&'static str]); 12] {
    let violation = Violation::new("/orderItems/0/quantity", "This must be from 1 to 1000000.");
    [
        (Problem::bad_request("The body is not valid JSON in UTF-8."), &[]),
        (Problem::unauthorized(), &["WWW-Authenticate"]),
        (Problem::insufficient_scope("orders:write"), &["WWW-Authenticate"]),
        (Problem::not_found(), &[]),
        (Problem::conflict("The order is cancelled."), &[]),
        (Problem::too_slow(), &[]),
        (Problem::payload_too_large(crate::web::json::BODY_LIMIT), &[]),
        (Problem::unsupported_media_type(), &[]),
        (Problem::unprocessable(vec![violation]), &[]),
        (Problem::too_many_requests(Duration::from_secs(1)), &["Retry-After"]),
        (Problem::internal(anyhow::anyhow!("an example")), &[]),
        (Problem::unavailable(), &["Retry-After"]),
    ]
}

fn response(problem: &Problem, headers: &[&str]) -> Response {
    let mut content = Content::new(Some(Ref::from_schema_name(problem::ProblemBody::name())));
    content.example = Some(problem.example("/orders"));
    let response = ResponseBuilder::new()
        .description(problem.status().canonical_reason().unwrap_or_default())
        .header_ref("X-Request-Id", header_ref("X-Request-Id"))
        .content("application/problem+json", content);
    headers.iter().fold(response, |response, name| response.header_ref(*name, header_ref(name))).build()
}

fn header(description: &str) -> Header {
    HeaderBuilder::new().description(Some(description)).build()
}

fn tag(name: &str, description: &str) -> Tag {
    TagBuilder::new().name(name).description(Some(description)).build()
}

fn bearer() -> SecurityScheme {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(TOKEN));
    SecurityScheme::Http(scheme.build())
}
