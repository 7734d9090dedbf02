//! The OpenAPI document and the page that shows it, and the AsyncAPI document. The page comes out of the binary, and asks for
//! nothing but this service: it works where there is no internet.

use std::{borrow::Cow, collections::BTreeMap, future::ready, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse, Resource,
    http::header::LOCATION,
    web::{self, Bytes, Data, Path, ServiceConfig},
};
use serde_json::Value;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use super::{WithoutToken, fixed::Fixed, only};
use crate::web::problem::Problem;

/// What the page is made of, of what its crate has.
const FILES: [&str; 8] = [
    "favicon-16x16.png",
    "favicon-32x32.png",
    "index.css",
    "index.html",
    "swagger-initializer.js",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.css",
];
/// The page that the root leads to, where it is there.
const OPERATIONS: &str = "/operations";

#[derive(Clone)]
pub(super) struct Docs {
    document: Fixed,
    messages: Option<Fixed>,
    page: Data<Page>,
}

/// The files, by their names.
type Page = BTreeMap<&'static str, Fixed>;

impl Docs {
    pub(super) fn of(document: &OpenApi, messages: Option<&Value>) -> Self {
        let document = document.to_pretty_json().expect("texts and numbers are JSON");
        let json = |text: String| Fixed::new("application/json", text);
        let messages = messages.map(|document| json(format!("{document:#}")));
        Self { document: json(document), messages, page: Data::new(page()) }
    }

    pub(super) fn add_to(&self, routes: &mut ServiceConfig) {
        routes
            .app_data(self.page.clone())
            .service(web::resource("/").get(from_the_root).default_service(only("GET")))
            .service(json("/openapi.json", &self.document))
            .service(web::resource("/docs").get(to_the_page).default_service(only("GET")))
            .service(web::resource("/docs/{file:.*}").get(file).default_service(only("GET")));
        if let Some(messages) = &self.messages {
            routes.service(json("/asyncapi.json", messages));
        }
    }
}

fn page() -> Page {
    // The page would otherwise send the document to a validator elsewhere.
    let settings = Arc::new(Config::from("../openapi.json").validator_url("none"));
    let file = |name: &'static str| {
        let found = utoipa_swagger_ui::serve(name, Arc::clone(&settings)).ok().flatten();
        let file = found.expect("the crate has the files of its page");
        let bytes = match file.bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        (name, Fixed::new(file.content_type, bytes))
    };
    FILES.into_iter().map(file).collect()
}

/// Whoever has the address only finds the rest from there: the page for operators, or else that of the documents.
async fn from_the_root(request: HttpRequest) -> HttpResponse {
    let pages = request.app_data::<Data<WithoutToken>>();
    let has_page = pages.is_some_and(|pages| pages.0.contains(OPERATIONS));
    let to = if has_page { OPERATIONS.trim_start_matches('/') } else { "docs/" };
    HttpResponse::TemporaryRedirect().insert_header((LOCATION, to)).finish()
}

fn json(path: &str, document: &Fixed) -> Resource {
    let document = document.clone();
    web::resource(path).get(move || ready(document.answer())).default_service(only("GET"))
}

/// What the page is made of lies beside it.
async fn to_the_page() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "docs/")).finish()
}

/// # Errors
/// 404.
async fn file(name: Path<String>, page: Data<Page>) -> Result<HttpResponse, Problem> {
    let name = if name.is_empty() { "index.html" } else { name.as_str() };
    page.get(name).map(Fixed::answer).ok_or_else(Problem::no_such_path)
}
