//! The pages that people open in a browser. They come out of the binary and need no token: what they show they
//! ask the API for, with the token of whoever looks.

mod settings;

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CONTENT_SECURITY_POLICY, HeaderValue},
    web::{self, Data, ServiceConfig},
};
use serde_json::{Value, json};
pub use settings::{Oidc, Settings};

use crate::web::{
    http::{Api, Fixed, WithoutToken, only},
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
    by_path: BTreeMap<String, Fixed>,
    policy: HeaderValue,
}

impl Pages {
    /// None where `pages.enabled` is false. `scopes` says where a token has them; none where the API asks for no token.
    ///
    /// # Panics
    /// An entry names a file that is not there.
    #[must_use]
    pub fn new(settings: &Settings, site: Site<'_>, api: &Api, scopes: Option<&Value>) -> Option<Self> {
        settings.enabled.then(|| {
            let mut by_path = BTreeMap::new();
            for file in COMMON.iter().chain(site.files) {
                by_path.insert(format!("{FILES}{}", file.name), Fixed::new(kind(file.name), file.bytes));
            }
            let told = told(settings, site, api, scopes).to_string();
            by_path.insert(format!("{FILES}settings.json"), Fixed::new(kind("settings.json"), told));
            for (path, name) in site.entries {
                let file = site.files.iter().find(|file| file.name == *name).expect("a test opens every entry");
                by_path.insert((*path).into(), Fixed::new(kind(name), file.bytes));
            }
            let policy = HeaderValue::from_str(&policy(settings)).expect("origins are visible");
            Self(Arc::new(Contents { by_path, policy }))
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
fn told(settings: &Settings, site: Site<'_>, api: &Api, scopes: Option<&Value>) -> Value {
    json!({
        "service": site.service,
        "version": env!("CARGO_PKG_VERSION"),
        "needsToken": scopes.is_some(),
        "scopes": scopes,
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

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/json",
    }
}

/// # Errors
/// 404.
async fn serve(request: HttpRequest, pages: Data<Pages>) -> Result<HttpResponse, Problem> {
    let file = pages.0.by_path.get(request.path()).ok_or_else(Problem::not_found)?;
    let mut answer = file.answer();
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, pages.0.policy.clone());
    Ok(answer)
}
