//! The OpenAPI document and the page that shows it, and the AsyncAPI document. The page comes out of the binary, and asks for
//! nothing but this service: it works where there is no internet.

use std::{future::ready, sync::Arc};

use actix_web::{
    HttpResponse, Resource,
    http::header::{CACHE_CONTROL, LOCATION},
    web::{self, Bytes, Data, Path, ServiceConfig},
};
use serde_json::Value;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use super::only;
use crate::web::problem::Problem;

#[derive(Clone)]
pub(super) struct Docs {
    document: Bytes,
    messages: Option<Bytes>,
    page: Data<Arc<Config<'static>>>,
}

impl Docs {
    pub(super) fn of(document: &OpenApi, messages: Option<&Value>) -> Self {
        let document = document.to_pretty_json().expect("texts and numbers are JSON");
        // The page would otherwise send the document to a validator elsewhere.
        let page = Config::from("../openapi.json").validator_url("none");
        let messages = messages.map(|document| format!("{document:#}").into());
        Self { document: document.into(), messages, page: Data::new(Arc::new(page)) }
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

/// Whoever has the address only finds the rest from there.
async fn from_the_root() -> HttpResponse {
    HttpResponse::TemporaryRedirect().insert_header((LOCATION, "docs/")).finish()
}

fn json(path: &str, document: &Bytes) -> Resource {
    let document = document.clone();
    let answer = move || {
        ready(
            HttpResponse::Ok()
                .insert_header((CACHE_CONTROL, "no-cache"))
                .content_type("application/json")
                .body(document.clone()),
        )
    };
    web::resource(path).get(answer).default_service(only("GET"))
}

/// What the page is made of lies beside it.
async fn to_the_page() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "docs/")).finish()
}

async fn file(name: Path<String>, page: Data<Arc<Config<'static>>>) -> Result<HttpResponse, Problem> {
    let found = utoipa_swagger_ui::serve(&name, Arc::clone(&page));
    let file =
        found.map_err(|error| Problem::internal(anyhow::anyhow!("{error}")))?.ok_or_else(Problem::no_such_path)?;
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CACHE_CONTROL, "no-cache")).content_type(file.content_type);
    Ok(answer.body(file.bytes.into_owned()))
}
