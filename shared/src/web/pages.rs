//! The pages that people open in a browser. They come out of the binary and need no token: what they show they
//! ask the API for, with the token of whoever looks.

mod settings;

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    web::{self, Bytes, Data, ServiceConfig},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
pub use settings::{Oidc, Settings};
use sha2::{Digest, Sha256};

use crate::web::{
    http::{Api, WithoutToken, only},
    problem::Problem,
};

/// A file of a page, by the name it has in the folder `pages` of its crate.
#[derive(Clone, Copy, Debug)]
pub struct File {
    pub name: &'static str,
    pub bytes: &'static [u8],
}

/// Takes files of the folder `pages` of the crate it stands in into the binary.
#[macro_export]
macro_rules! page_files {
    ($($name:literal),* $(,)?) => {
        &[$($crate::web::pages::File {
            name: $name,
            bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/pages/", $name)),
        }),*]
    };
}

const COMMON: &[File] = page_files![
    "api.js",
    "audit.js",
    "base.css",
    "clock.js",
    "confirm.js",
    "dom.js",
    "format.js",
    "frame.js",
    "icon.svg",
    "list.js",
    "operations.css",
    "pausing.js",
    "peer.js",
    "poll.js",
    "session.js",
    "signin.js",
    "strip.js",
    "tasks.js",
    "way.js",
];

/// Where the files are; the entries name them relative to themselves.
const FILES: &str = "/pages/";

/// What a service has of pages, beside what all have in common.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    pub service: &'static str,
    /// The zone whose midnight ends a day, where the service has one.
    pub time_zone: Option<&'a str>,
    /// Paths, and the file each of them shows.
    pub entries: &'static [(&'static str, &'static str)],
    pub files: &'static [File],
}

/// Everything that is served, by its path. Clones share it.
#[derive(Clone, Debug)]
pub struct Pages(Arc<Contents>);

#[derive(Debug)]
struct Contents {
    by_path: BTreeMap<String, Content>,
    policy: String,
}

#[derive(Debug)]
struct Content {
    kind: &'static str,
    bytes: Bytes,
    tag: String,
}

impl Pages {
    /// None where `pages.enabled` is false. `needs_token` says whether the API asks for one.
    ///
    /// # Panics
    /// An entry names a file that is not there.
    #[must_use]
    pub fn new(settings: &Settings, site: Site<'_>, api: &Api, needs_token: bool) -> Option<Self> {
        settings.enabled.then(|| {
            let mut by_path = BTreeMap::new();
            for file in COMMON.iter().chain(site.files) {
                by_path.insert(format!("{FILES}{}", file.name), Content::new(file.name, file.bytes.into()));
            }
            let told = told(settings, site, api, needs_token).to_string();
            by_path.insert(format!("{FILES}settings.json"), Content::new("settings.json", told.into()));
            for (path, name) in site.entries {
                let file = site.files.iter().find(|file| file.name == *name).expect("a test opens every entry");
                by_path.insert((*path).into(), Content::new(name, file.bytes.into()));
            }
            Self(Arc::new(Contents { by_path, policy: policy(settings) }))
        })
    }

    pub fn routes(&self, routes: &mut ServiceConfig) {
        routes.app_data(Data::new(self.clone()));
        routes.app_data(Data::new(WithoutToken(self.0.by_path.keys().cloned().collect())));
        // The files are one route to those who measure.
        let entries = self.0.by_path.keys().map(String::as_str).filter(|path| !path.starts_with(FILES));
        for path in entries.chain(["/pages/{file}"]) {
            routes.service(web::resource(path).get(serve).default_service(only("GET")));
        }
    }
}

/// What the scripts have to know beforehand. The routes tell them which parts of a page have something to show.
fn told(settings: &Settings, site: Site<'_>, api: &Api, needs_token: bool) -> Value {
    json!({
        "service": site.service,
        "version": env!("CARGO_PKG_VERSION"),
        "needsToken": needs_token,
        "oidc": settings.oidc.as_ref().map(|oidc| json!({ "issuer": oidc.issuer, "clientId": oidc.client_id })),
        "peerUrl": settings.peer_url,
        "timeZone": site.time_zone,
        "routes": api.names(),
    })
}

/// Scripts may make no markup out of text, and ask nobody but this service, the other one, and for a token the issuer.
fn policy(settings: &Settings) -> String {
    let others = settings.peer_origin().into_iter().chain(settings.oidc.as_ref().map(Oidc::origin));
    let others = others.map(|origin| format!(" {origin}")).collect::<String>();
    format!(
        "default-src 'self'; connect-src 'self'{others}; object-src 'none'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

impl Content {
    fn new(name: &str, bytes: Bytes) -> Self {
        let kind = match name.rsplit('.').next() {
            Some("html") => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "application/json",
        };
        let tag = format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(&bytes)[..12]));
        Self { kind, bytes, tag }
    }
}

/// # Errors
/// 404.
async fn serve(request: HttpRequest, pages: Data<Pages>) -> Result<HttpResponse, Problem> {
    let content = pages.0.by_path.get(request.path()).ok_or_else(Problem::not_found)?;
    let is_known = request.headers().get(IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == content.tag.as_bytes());
    let mut answer = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    // Kept by the browser, but asked for each time: after an update no page is put together of old and new.
    answer
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((ETAG, content.tag.as_str()))
        .insert_header((CONTENT_SECURITY_POLICY, pages.0.policy.as_str()));
    if is_known {
        return Ok(answer.finish());
    }
    Ok(answer.insert_header((CONTENT_TYPE, content.kind)).body(content.bytes.clone()))
}
