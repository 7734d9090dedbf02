use std::{net::SocketAddr, time::Duration};

use actix_web::http::header::HeaderName;

use super::origin::origin_of;
use crate::runtime::config::{Bind, Reader};

/// What one server of this process lets in. The time limits that nobody needs to change are at
/// `http/connection.rs` and [`crate::web::json`].
#[derive(Clone, Debug)]
pub struct Settings {
    pub bind: SocketAddr,
    /// Open at the same time. For a further one the longest idle makes room; where none is, it is answered 503
    /// and closed.
    pub max_connections: u32,
    /// Of these, from one address; 0 is any number.
    pub max_per_address: u32,
    /// How long a connection may be idle between two requests.
    pub keep_alive: Duration,
    pub rate: Rate,
    /// The pages whose scripts may read answers: none but these.
    pub allowed_origins: Vec<String>,
    /// Where the other service's pages come from: they may read answers too, and change nothing.
    pub peer_origin: Option<String>,
    /// The headers that they may send.
    pub allowed_headers: Vec<String>,
    /// The names of this service, where no token protects it; addresses and `localhost` are always.
    pub allowed_hosts: Vec<String>,
    /// What `Location` begins with, without a slash at its end.
    pub public_url: Option<String>,
}

/// How many requests one caller may make; `per_second` 0 is any number.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub per_second: u32,
    /// How many of them at once, after a pause.
    pub burst: u32,
}

impl Settings {
    /// Those of the API, `http.*`.
    /// Reads them; of the other service's pages where they come from, if it has any.
    pub fn read(settings: &mut Reader, peer_origin: Option<String>) -> Self {
        Self {
            bind: settings.get::<Bind>("http.bind").0,
            max_connections: settings.within("http.max_connections", 1..=100_000, "from 1 to 100000"),
            max_per_address: settings.within("http.max_connections_per_address", 0..=100_000, "from 0 to 100000"),
            keep_alive: settings.within("http.keep_alive", Duration::from_secs(1).., "1s or longer"),
            rate: Rate {
                per_second: settings.within("http.rate_limit.per_second", 0..=1_000_000, "from 0 to 1000000"),
                burst: settings.within("http.rate_limit.burst", 1..=1_000_000, "from 1 to 1000000"),
            },
            allowed_origins: settings
                .optional("http.cors.allowed_origins", |origins: &Vec<String>| are_origins(origins))
                .unwrap_or_default(),
            peer_origin,
            allowed_headers: settings.checked("http.cors.allowed_headers", |names: &Vec<String>| are_headers(names)),
            allowed_hosts: hosts(settings, "http.allowed_hosts"),
            public_url: settings
                .optional("http.public_url", |url: &String| is_public_url(url))
                .map(|url| url.trim_end_matches('/').to_owned()),
        }
    }

    /// Those of the management port: probes and scrapes are few, and closed to everybody else.
    pub fn management(settings: &mut Reader) -> Self {
        Self {
            bind: settings.get::<Bind>("management.bind").0,
            max_connections: 100,
            max_per_address: 0,
            keep_alive: Duration::from_secs(75),
            rate: Rate { per_second: 0, burst: 1 },
            allowed_origins: Vec::new(),
            peer_origin: None,
            allowed_headers: Vec::new(),
            allowed_hosts: hosts(settings, "management.allowed_hosts"),
            public_url: None,
        }
    }
}

fn hosts(settings: &mut Reader, key: &str) -> Vec<String> {
    let is_name = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let rule = |names: &Vec<String>| {
        let rule = "must be a list of names with commas, without ports, like orders.example";
        if names.iter().all(is_name) { Ok(()) } else { Err(rule.into()) }
    };
    settings.optional(key, rule).unwrap_or_default()
}

fn is_public_url(url: &str) -> Result<(), String> {
    let is_visible = url.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b));
    let is_web = ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme));
    let rule = "must be a URL without a query, like https://shop.example/orders-api";
    if is_visible && is_web && origin_of(url).is_some() { Ok(()) } else { Err(rule.into()) }
}

fn are_headers(names: &[String]) -> Result<(), String> {
    let is_name = |name: &String| HeaderName::from_bytes(name.as_bytes()).is_ok();
    let rule = "must be a list of names of headers with commas";
    if names.iter().all(is_name) { Ok(()) } else { Err(rule.into()) }
}

fn are_origins(origins: &[String]) -> Result<(), String> {
    let is_origin = |text: &String| origin_of(text).as_ref() == Some(text);
    let rule = "must be a list of origins with commas, like https://shop.example";
    if origins.iter().all(is_origin) { Ok(()) } else { Err(rule.into()) }
}
